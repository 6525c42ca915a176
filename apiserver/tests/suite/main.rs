//! The API server as its clients see it: the whole pipeline in one process over the embedded store.

mod bad_input;
mod custom;
mod deletion;
mod lists;
mod server;
mod services;
mod watches;
mod writes;
