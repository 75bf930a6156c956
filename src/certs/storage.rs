//! Whether tailscaled could store a certificate in a TLS Secret, as far as that can be seen in it. Pure.
//!
//! A certificate that cannot be stored is lost and counts against the authority's limits all the same, so this is asked
//! before the authority is. tailscaled only fills Secrets (`ipn/store/kubestore`); the operator makes them.

use super::names::Name;
use super::world::Blocked;
use crate::k8s::StateSecret;

/// The only type that a TLS Secret can have.
const TLS: &str = "kubernetes.io/tls";

/// Looks at the Secret of `name`, or at its absence.
///
/// # Errors
/// Why nothing could be stored, and what to do.
pub fn check(name: &Name, secret: Option<&StateSecret>) -> Result<(), Blocked> {
    if name.is_wildcard() {
        return Err(Blocked(format!("`{name}` is no name that a Secret can have")));
    }
    let Some(secret) = secret else {
        return Err(Blocked(format!(
            "Secret `{name}` does not exist; the operator makes it, tailscaled only fills it"
        )));
    };
    if secret.is_stopping {
        return Err(Blocked(format!("Secret `{name}` is being deleted")));
    }
    match secret.kind.as_deref() {
        Some(TLS) | None => Ok(()),
        Some(other) => Err(Blocked(format!("Secret `{name}` is of type `{other}`, and has to be `{TLS}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_could_not_take_a_certificate_says_why() {
        let name = Name::parse("a.b").unwrap();
        let why = |secret: Option<&StateSecret>| check(&name, secret).map_err(|blocked| blocked.0);
        let good = StateSecret { kind: Some(TLS.to_owned()), ..StateSecret::default() };
        assert_eq!(why(Some(&good)), Ok(()));
        assert!(why(None).unwrap_err().contains("does not exist"));
        let leaving = StateSecret { is_stopping: true, ..good.clone() };
        assert_eq!(why(Some(&leaving)).unwrap_err(), "Secret `a.b` is being deleted");
        let opaque = StateSecret { kind: Some("Opaque".to_owned()), ..good.clone() };
        assert!(why(Some(&opaque)).unwrap_err().contains("`Opaque`"));
        assert!(check(&Name::parse("*.a.b").unwrap(), Some(&good)).is_err());
    }
}
