//! How a write is sent and told: `--dry-run`, `-o`, `--field-manager`.

use clap::Args;
use serde_json::Value;

use crate::cli::DryRun;
use crate::output;

/// Flags of verbs that write. They may also stand behind a verb's second word, as in `create secret generic -o yaml`.
#[derive(Args, Clone, Debug, Default)]
pub struct Writing {
    /// Only try: `client` sends nothing, `server` checks and stores nothing
    #[arg(long, global = true, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// Show the result: json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, global = true, value_name = "FORM")]
    pub output: Option<String>,
    /// The name under which the server notes who set the fields
    #[arg(long, global = true, value_name = "NAME")]
    pub field_manager: Option<String>,
}

impl Writing {
    /// The query of a write, without `?`.
    pub fn query(&self, default_manager: &str) -> String {
        let manager = self.field_manager.as_deref().unwrap_or(default_manager);
        let dry_run = if self.dry_run.is_server() { "&dryRun=All" } else { "" };
        format!("fieldManager={}{dry_run}", crate::session::escape(manager))
    }

    /// Says what was done, or shows the object if a form was asked for.
    pub fn tell(&self, object: &Value, reported: &str, done: &str) -> anyhow::Result<()> {
        let suffix = match self.dry_run {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        };
        match self.output.as_deref() {
            Some(form) if !form.is_empty() => {
                let mut object = object.clone();
                output::hide_managed_fields(&mut object);
                output::print_object(&object, form)?;
            }
            _ => println!("{reported} {done}{suffix}"),
        }
        Ok(())
    }
}
