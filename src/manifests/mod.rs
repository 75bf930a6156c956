//! Kubernetes manifests: what a person would otherwise write by hand. Pure.
//!
//! [`boot::render`] and [`proxy::render`] make the documents from a few options, the same text for the same options.
//! Boot's Role comes from the [table of permissions](permissions), which is also what `tailpod doctor` asks the API
//! server about.

pub mod boot;
pub mod permissions;
mod pod;
mod policy;
pub mod proxy;
mod rbac;
pub mod yaml;

pub use self::pod::{security_context, sysctl_container, tun_volume};
pub use self::rbac::Account;
