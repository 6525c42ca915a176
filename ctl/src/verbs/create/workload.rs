//! Deployments, jobs, cron jobs and disruption budgets.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::{Made, bare};
use crate::session::Session;
use crate::tree::pairs;

/// The flags of `create deployment`.
#[derive(Args, Clone, Debug)]
pub struct DeploymentOptions {
    /// The name
    name: String,
    /// The images; each makes a container
    #[arg(long, required = true, value_delimiter = ',', value_name = "IMAGE")]
    image: Vec<String>,
    /// How many pods
    #[arg(short, long, default_value_t = 1, value_name = "NUMBER")]
    replicas: u32,
    /// The port that the container listens on
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The command, after `--`
    #[arg(last = true)]
    command: Vec<String>,
}

impl DeploymentOptions {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        if self.image.len() > 1 && !self.command.is_empty() {
            bail!("error: cannot specify multiple --image options and command");
        }
        let mut containers = Vec::new();
        for image in &self.image {
            let mut container = json!({"name": name_of_image(image), "image": image});
            if let Some(port) = self.port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            if !self.command.is_empty() {
                container["command"] = json!(self.command);
            }
            containers.push(container);
        }
        let labels = json!({"app": self.name});
        let mut object = bare("apps/v1", "Deployment", &self.name);
        object["metadata"]["labels"] = labels.clone();
        object["spec"] = json!({
            "replicas": self.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        });
        Ok(Made::namespaced("/apis/apps/v1", "deployments", object))
    }
}

/// A container's name from its image: the last part, without tag and digest.
pub fn name_of_image(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split(['@', ':']).next().unwrap_or(last);
    let name: String =
        bare.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    name.trim_matches('-').to_string()
}

/// The flags of `create job`.
#[derive(Args, Clone, Debug)]
pub struct JobOptions {
    /// The name
    name: String,
    /// The image
    #[arg(long, value_name = "IMAGE", required_unless_present = "from", conflicts_with = "from")]
    image: Option<String>,
    /// A cron job that is to run now: cronjob/backup
    #[arg(long, value_name = "CRONJOB")]
    from: Option<String>,
    /// The command, after `--`
    #[arg(last = true)]
    command: Vec<String>,
}

impl JobOptions {
    /// The object.
    pub async fn make(&self, session: &Session) -> anyhow::Result<Made> {
        let mut object = bare("batch/v1", "Job", &self.name);
        match (&self.from, &self.image) {
            (Some(from), _) => {
                let name = match from.split_once('/') {
                    Some(("cronjob" | "cronjobs" | "cj" | "cronjob.batch" | "cronjobs.batch", name)) => name,
                    _ => bail!("error: from must be an existing cronjob, as cronjob/NAME; not {from:?}"),
                };
                let path = format!("/apis/batch/v1/namespaces/{}/cronjobs/{name}", session.namespace);
                let cron_job = session.api.get(&path).await?;
                self.copy(&cron_job, &mut object);
            }
            (None, image) => {
                let image = image.as_deref().unwrap_or_default();
                object["spec"]["template"] = template(&self.name, image, &self.command, "Never");
            }
        }
        Ok(Made::namespaced("/apis/batch/v1", "jobs", object))
    }

    /// Makes the job what the cron job would start now, and owned by it.
    fn copy(&self, cron_job: &Value, object: &mut Value) {
        let template = &cron_job["spec"]["jobTemplate"];
        object["spec"] = template["spec"].clone();
        for map in ["labels", "annotations"] {
            if template["metadata"][map].is_object() {
                object["metadata"][map] = template["metadata"][map].clone();
            }
        }
        object["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] = "manual".into();
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job["metadata"]["name"],
            "uid": cron_job["metadata"]["uid"], "controller": true,
        }]);
    }
}

fn template(name: &str, image: &str, command: &[String], restart: &str) -> Value {
    let mut container = json!({"name": name, "image": image});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({"spec": {"containers": [container], "restartPolicy": restart}})
}

/// The flags of `create cronjob`.
#[derive(Args, Clone, Debug)]
pub struct CronJobOptions {
    /// The name
    name: String,
    /// The image
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// When, as `*/5 * * * *`
    #[arg(long, value_name = "SCHEDULE")]
    schedule: String,
    /// What happens when the command fails: OnFailure or Never
    #[arg(long, default_value = "OnFailure", value_name = "POLICY")]
    restart: String,
    /// The command, after `--`
    #[arg(last = true)]
    command: Vec<String>,
}

impl CronJobOptions {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        self.schedule
            .parse::<api::cron::Schedule>()
            .map_err(|error| anyhow::anyhow!("error: --schedule {:?}: {error}", self.schedule))?;
        let mut object = bare("batch/v1", "CronJob", &self.name);
        object["spec"] = json!({
            "schedule": self.schedule,
            "jobTemplate": {
                "metadata": {"name": self.name},
                "spec": {"template": template(&self.name, &self.image, &self.command, &self.restart)},
            },
        });
        Ok(Made::namespaced("/apis/batch/v1", "cronjobs", object))
    }
}

/// The flags of `create poddisruptionbudget`.
#[derive(Args, Clone, Debug)]
pub struct DisruptionBudgetOptions {
    /// The name
    name: String,
    /// Labels of the pods
    #[arg(long, value_name = "LABELS")]
    selector: String,
    /// How many must be there: a number or a percentage
    #[arg(
        long,
        value_name = "AMOUNT",
        required_unless_present = "max_unavailable",
        conflicts_with = "max_unavailable"
    )]
    min_available: Option<String>,
    /// How many may be missing: a number or a percentage
    #[arg(long, value_name = "AMOUNT")]
    max_unavailable: Option<String>,
}

impl DisruptionBudgetOptions {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        let mut object = bare("policy/v1", "PodDisruptionBudget", &self.name);
        let amount = |text: &String| text.parse::<u32>().map_or_else(|_| json!(text), |number| json!(number));
        if let Some(text) = &self.min_available {
            object["spec"]["minAvailable"] = amount(text);
        }
        if let Some(text) = &self.max_unavailable {
            object["spec"]["maxUnavailable"] = amount(text);
        }
        object["spec"]["selector"]["matchLabels"] = pairs(self.selector.split(','), "--selector: ")?;
        Ok(Made::namespaced("/apis/policy/v1", "poddisruptionbudgets", object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_after_its_image() {
        for (image, name) in [
            ("nginx", "nginx"),
            ("registry:5000/team/web:v2", "web"),
            ("busybox@sha256:abc", "busybox"),
            ("a/My_App:1", "my-app"),
        ] {
            assert_eq!(name_of_image(image), name, "{image}");
        }
    }

    #[test]
    fn a_job_of_a_cron_job_is_its_template_and_belongs_to_it() {
        let cron_job = json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"jobTemplate": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"backoffLimit": 3}}}});
        let options = JobOptions { name: "now".into(), image: None, from: None, command: Vec::new() };
        let mut object = bare("batch/v1", "Job", "now");
        options.copy(&cron_job, &mut object);
        assert_eq!(object["spec"]["backoffLimit"], 3);
        assert_eq!(object["metadata"]["labels"]["a"], "b");
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
    }
}
