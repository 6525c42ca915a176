//! Somebody with a command line, who expects to be understood.

use std::os::unix::fs::PermissionsExt;

use crate::cluster::{Cluster, Tool, eventually};

/// Somebody at work.
pub struct User<'a> {
    pub cluster: &'a Cluster,
    pub tool: &'a Tool,
}

impl User<'_> {
    /// What a command says that must succeed.
    #[track_caller]
    pub fn ok(&self, words: &str) -> String {
        self.ok_with(words, "")
    }

    /// The same, with standard input.
    #[track_caller]
    pub fn ok_with(&self, words: &str, input: &str) -> String {
        let said = self.cluster.run(self.tool, words, input);
        assert!(said.ok, "{:?} {words}: {said:?}", self.tool);
        said.out
    }

    /// What a command complains that must fail, behind what it said before.
    #[track_caller]
    pub fn fails(&self, words: &str, input: &str) -> String {
        let said = self.cluster.run(self.tool, words, input);
        assert!(!said.ok, "{:?} {words}: {said:?}", self.tool);
        said.out + &said.err
    }

    /// Asserts what commands say, each exactly.
    #[track_caller]
    pub fn says(&self, all: &[(&str, &str)]) {
        for (words, expected) in all {
            assert_eq!(self.ok(words), *expected, "{:?} {words}", self.tool);
        }
    }

    /// Asserts that a command's output has all of these parts, runs of spaces taken for one.
    #[track_caller]
    pub fn shows(&self, words: &str, parts: &[&str]) {
        let said = self.ok(words);
        let squeezed = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(squeezed.contains(part), "{:?} {words}: no {part:?} in\n{said}", self.tool);
        }
    }

    /// A field of an object.
    #[track_caller]
    pub fn field(&self, what: &str, path: &str) -> String {
        self.ok(&format!("get {what} -o jsonpath={{{path}}}"))
    }

    /// Waits until a command says exactly this.
    pub fn comes_to_say(&self, words: &str, expected: &str) {
        eventually(&format!("{words} says {expected:?}"), || {
            let said = self.cluster.run(self.tool, words, "");
            (said.ok && said.out == expected).then_some(())
        });
    }

    /// Sets what the editor does with the file that it is given: a script of sed.
    pub fn set_editor(&self, sed: &str) {
        self.cluster.write("editor", &format!("#!/bin/sh\nexec sed -i '{sed}' \"$1\"\n"));
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.cluster.path("editor"), executable).unwrap();
    }
}
