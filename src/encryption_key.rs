//! `gantry encryption-key`: the key that secrets are encrypted with at rest.

use apiserver::encryption::rotate_key;

use crate::cli::{EncryptionKeyAction, EncryptionKeyOptions};
use crate::settings::Settings;

pub fn run(options: &EncryptionKeyOptions) -> anyhow::Result<()> {
    match &options.action {
        EncryptionKeyAction::Rotate { common } => {
            let path = Settings::resolve(common)?.encryption_key_file();
            let ids = rotate_key(&path)?;
            let (new, old) = ids.split_first().map_or(("", &[][..]), |(new, old)| (new.as_str(), old));
            println!("key {new} now encrypts secrets; {} older stay for reading", old.len());
            eprintln!(
                "\nA running server encrypts all secrets anew within seconds and says so in its log; one that is stopped does at\nits next start. Keep a copy of {}, apart from those of the store.",
                path.display()
            );
            Ok(())
        }
    }
}
