//! Everything through the front door: the built binary, real sockets, pretend servers.
//!
//! One binary holds all integration tests: linked once, one set of helpers.

#![expect(clippy::unwrap_used, reason = "a test that panics names its line")]

mod apiserver;
mod architecture;
mod authkey;
mod boot;
mod certs_commands;
mod certs_lease;
mod certs_manager;
mod certs_promotion;
mod certs_watch;
mod cli;
mod dependencies;
mod doctor;
mod exec;
mod fuzz;
mod generated;
mod ha;
mod k8s;
mod k8s_proxy;
mod localapi;
mod localapi_scenarios;
mod manifests;
mod proxy;
mod sandbox;
mod secret;
mod serve;
mod support;
