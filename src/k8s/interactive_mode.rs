//! Kubeconfigs with an `interactiveMode` that does not exist.
//!
//! kube refuses the whole file for one, whoever uses it; clientcmd refuses what uses that user, along with everything
//! else that is wrong there.

use kube::config::{ExecConfig, Kubeconfig, KubeconfigError};
use serde_json::Value;
use zeroize::Zeroizing;

/// Where such a mode is put: among the fields that kube keeps and does not know.
const ASIDE: &str = "unknown interactiveMode";

/// Reads a file.
pub(super) fn read(text: &str) -> Result<Kubeconfig, KubeconfigError> {
    Kubeconfig::from_yaml(text).or_else(|error| match put_aside(text) {
        // JSON is YAML.
        Some(text) => Kubeconfig::from_yaml(&text).map_err(|_| error),
        None => Err(error),
    })
}

/// The mode that does not exist, if this plugin has one.
pub(super) fn unknown(exec: &ExecConfig) -> Option<&str> {
    exec.other.get(ASIDE)?.as_str()
}

fn put_aside(text: &str) -> Option<Zeroizing<String>> {
    let mut document: Value = serde_saphyr::from_str(text).ok()?;
    for user in document.get_mut("users")?.as_array_mut()? {
        let Some(exec) = user.pointer_mut("/user/exec").and_then(Value::as_object_mut) else { continue };
        let mode = exec.get("interactiveMode").and_then(Value::as_str).unwrap_or("Never");
        if !["Never", "IfAvailable", "Always"].contains(&mode)
            && let Some(mode) = exec.remove("interactiveMode").filter(|mode| mode != "")
        {
            exec.insert(ASIDE.to_owned(), mode);
        }
    }
    Some(Zeroizing::new(document.to_string()))
}
