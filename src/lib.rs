//! tailpod: Tailscale in Pods, from one small binary with many names.
//!
//! This page is the architecture. The folders are the diagram: one for each idea, named with the field's own word.
//!
//! ```text
//!                    argv, environment, terminal
//!                                |
//!   main          one call      cli      parser, applets, exit codes, the only writer
//!                                |
//!   wiring                    applet     one file each: settings -> adapters -> features -> exit status
//!                                |
//!   features       boot    proxy    sandbox               decisions (pure) and the shells that perform them
//!                                |
//!                    authkey  certs  node  proxygroup       what features share: keys, certificates, news, HA groups
//!                                |
//!                             serve                       the serve config: read, compare, apply
//!                                |
//!   adapters  localapi  k8s  daemon  netfilter  dns  health        the world, in our types
//!                                |
//!                            settings                    the environment, read once
//!                                |
//!   foundation  backoff  escape  prefix  secret  shutdown  telemetry  ...
//! ```
//!
//! # The import rule
//!
//! Imports point down this picture, never up and never sideways: features meet only in an applet, and what two of one
//! layer share is a file marked *pure*. Nothing below `cli` prints, reads argv or ends the process. A dependency's types
//! stay where they are adapted: `kube` in [`k8s`], `reqwest` in [`localapi`], `clap` in [`cli`] and [`applet`]. A file
//! that calls itself *Pure* touches no file, socket, clock, process or environment: bytes and values in, values out.
//! `tests/integration/architecture.rs` holds all of it, and names the line that does not.
//!
//! # The life of a boot
//!
//! 1. [`cli`] rewrites the program's name to arguments (`containerboot` is `tailpod boot` under upstream's contract),
//!    parses, starts the log and calls [`applet::boot`].
//! 2. [`settings`] reads the environment once. Every problem is reported together, and what comes out has no wrong
//!    combination in it: one mode, one way to log in, one state store.
//! 3. The host is prepared, the state Secret is read through [`k8s`] and stale keys in it are cleared.
//! 4. tailscaled is started; whoever waits for its socket also watches the child, so a death is noticed at once.
//! 5. [`health`] listens, and [`localapi`] follows the IPN bus. Each message becomes an event; a pure step turns state
//!    and event into the next state and actions: log in, write the device's keys, ask for a new auth key through
//!    `authkey`. The shell around it performs them and reports how they went, as further events.
//! 6. `Startup complete` is logged. From here on the same loop keeps the Secret, the health and the daemon as they
//!    should be, and restarts or gives up.
//! 7. Whatever ends it, a signal, an error or a new key, ends in one stop sequence ([`shutdown`]): stop taking work, let
//!    the state settle, SIGTERM to tailscaled, wait, and only then close the listeners. The result becomes an exit
//!    status in [`cli::exit`].
//!
//! Errors below `applet` are typed, each variant there because somebody branches on it; from `applet` up they are
//! `anyhow` with context, and [`cli::report`] adds hints and exit codes.
//!
//! # Where to add an applet
//!
//! A file in `src/applet/` with an `Args` struct, examples in its help and a `run`; a variant of [`cli::Applet`] and
//! its line in the dispatch below; if programs call it by another name, a line in [`cli::program::LINKS`]. What it does
//! goes into a folder of its own beside `boot`. Then `tailpod generate all .`, and tests demand the rest.

pub mod applet;
pub mod authkey;
pub mod backoff;
pub mod boot;
pub mod causes;
pub mod certs;
pub mod cli;
pub mod daemon;
pub mod digest;
pub mod dns;
pub mod doctor;
pub mod escape;
pub mod filewatch;
pub mod fqdn;
pub mod goduration;
pub mod health;
pub mod http1;
pub mod hujson;
pub mod k8s;
pub mod keepalive;
pub mod localapi;
pub mod located;
pub mod lock;
pub mod manifests;
pub mod maybe;
pub mod netfilter;
pub mod node;
pub mod prefix;
pub mod proxy;
pub mod proxygroup;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
pub mod serve;
pub mod settings;
pub mod short;
pub mod shutdown;
pub mod spelling;
pub mod statesecret;
pub mod telemetry;
pub mod unverified;
pub mod x509;
