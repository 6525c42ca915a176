//! Every input that was worth keeping.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

#[test]
fn what_was_kept_should_hold() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in properties::TARGETS {
        let files = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            eprintln!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count >= 10, "{name} has {count} inputs");
    }
}
