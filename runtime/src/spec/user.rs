//! Who a container runs as: numbers are taken as they are, names are looked up in the image.

use std::path::Path;

use k8s_cri::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use serde::{Deserialize, Serialize};

use super::SpecError;
use crate::rooted;

/// A user with its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

pub(super) fn resolve(
    rootfs: &Path,
    security: &LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<User, SpecError> {
    let read = |file: &str| {
        rooted::read(rootfs, Path::new(file))
            .map(Option::unwrap_or_default)
            .map_err(|error| SpecError::Io(format!("reading {file} of the image"), error))
    };
    resolve_in(&read("etc/passwd")?, &read("etc/group")?, security, image_user)
}

fn resolve_in(
    passwd: &str,
    group: &str,
    security: &LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<User, SpecError> {
    // The container's own settings first; a group is only taken from the image together with its user.
    let (user, group_name) = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => (uid.value.to_string(), None),
        (None, "") => match image_user.split_once(':') {
            Some((user, group)) => {
                (user.to_owned(), Some(group.to_owned()).filter(|group| !group.is_empty()))
            }
            None => (image_user.to_owned(), None),
        },
        (None, name) => (name.to_owned(), None),
    };
    let user = if user.is_empty() { "0".to_owned() } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().filter_map(passwd_entry).find(|entry| match number {
        Some(number) => entry.uid == number,
        None => entry.name == user,
    });
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(number)) => number,
        (None, None) => return Err(SpecError::NoUser(user)),
    };
    let gid = match (&security.run_as_group, group_name) {
        (Some(gid), _) => u32::try_from(gid.value).map_err(|_| SpecError::NoGroup(gid.value.to_string()))?,
        (None, Some(name)) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => group_id(group, &name).ok_or(SpecError::NoGroup(name))?,
        },
        (None, None) => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = Vec::new();
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(entry) = &entry
    {
        groups.extend(group.lines().filter_map(|line| member_of(line, entry.name)));
    }
    groups.extend(security.supplemental_groups.iter().filter_map(|group| u32::try_from(*group).ok()));
    // The primary group is one of the process's groups, as a login would have it.
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty());
    Ok(User { uid, gid, groups, home: home.unwrap_or("/").to_owned() })
}

fn passwd_entry(line: &str) -> Option<PasswdEntry<'_>> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).unwrap_or_default();
    Some(PasswdEntry { name, uid, gid, home })
}

fn group_id(group: &str, name: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn member_of(line: &str, user: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let gid = fields.nth(2)?.parse().ok()?;
    fields.next()?.split(',').any(|member| member.trim() == user).then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::Int64Value;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nextra:x:50:web,other\nstaff:x:60:\n";

    fn resolved(security: LinuxContainerSecurityContext, image_user: &str) -> Result<User, SpecError> {
        resolve_in(PASSWD, GROUP, &security, image_user)
    }

    #[test]
    fn names_should_be_looked_up_with_their_groups() {
        let user = resolved(LinuxContainerSecurityContext::default(), "web").unwrap();
        assert_eq!(user, User { uid: 33, gid: 34, groups: vec![34, 50], home: "/var/www".into() });
        let user = resolved(LinuxContainerSecurityContext::default(), "web:staff").unwrap();
        assert_eq!((user.uid, user.gid), (33, 60));
        assert!(resolved(LinuxContainerSecurityContext::default(), "nobody-here").is_err());
    }

    #[test]
    fn numbers_should_need_no_entry_and_override_the_image() {
        let security = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 1000 }),
            supplemental_groups: vec![2000],
            ..LinuxContainerSecurityContext::default()
        };
        let user = resolved(security, "web:staff").unwrap();
        assert_eq!(user, User { uid: 1000, gid: 0, groups: vec![0, 2000], home: "/".into() });
    }
}
