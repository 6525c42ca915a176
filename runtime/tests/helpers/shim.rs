//! The shim of the runtime's own tests, in place of the whole binary.

fn main() {
    let mut arguments = std::env::args().skip(1);
    assert_eq!(arguments.next().as_deref(), Some("shim"), "usage: runtime-test-shim shim DIRECTORY");
    runtime::shim::main(&arguments.collect::<Vec<_>>())
}
