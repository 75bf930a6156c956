//! What the tailnet policy file needs for a proxy: who may use it, and as whom. Pure.

use serde_json::Value;

use super::proxy::{Listener, Mode, Options};

/// HuJSON to merge into the policy file. Grants go to the node's tag: that is where the proxy asks about its callers; a
/// Service is named as well, so that the way there is open.
pub(super) fn render(options: &Options) -> String {
    let Options { tag, src, groups, .. } = options;
    let service = match &options.listener {
        Listener::Serve { service, .. } => Some(service.clone()),
        Listener::Tls => None,
    };
    let dst: Vec<String> = std::iter::once(tag.clone()).chain(service.clone()).collect();
    let app = match options.mode {
        Mode::Auth => format!(
            ",\n      \"app\": {{\n        \"tailscale.com/cap/kubernetes\": [{{\"impersonate\": {{\"groups\": {}}}}}]\n      }}",
            list(groups)
        ),
        // Callers bring their own credentials.
        Mode::Noauth => String::new(),
    };
    let approvers = service.map(|service| {
        format!(",\n  \"autoApprovers\": {{\n    \"services\": {{{}: [{}]}}\n  }}", quoted(&service), quoted(tag))
    });
    format!(
        "{{\n  \"tagOwners\": {{{}: [\"autogroup:admin\"]}},\n  \"grants\": [\n    {{\n      \"src\": {},\n      \"dst\": \
         {},\n      \"ip\": [\"tcp:443\"]{app}\n    }}\n  ]{}\n}}\n",
        quoted(tag),
        list(src),
        list(&dst),
        approvers.unwrap_or_default()
    )
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

fn quoted(word: &str) -> String {
    Value::from(word).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_that_names_who_may_act_as_whom() {
        let mut options = Options {
            listener: Listener::Tls,
            mode: Mode::Auth,
            groups: vec!["a \"b\"".to_owned()],
            namespace: "ns".to_owned(),
            name: "proxy".to_owned(),
            image: "image".to_owned(),
            replicas: 1,
            tag: "tag:p".to_owned(),
            src: vec!["group:eng".to_owned()],
        };
        let read = |options: &Options| serde_json::from_str::<Value>(&render(options)).unwrap();
        let policy = read(&options);
        let rule = &policy["grants"][0]["app"]["tailscale.com/cap/kubernetes"][0];
        assert_eq!(rule["impersonate"]["groups"][0], "a \"b\"");
        assert_eq!(policy["grants"][0]["dst"], serde_json::json!(["tag:p"]));
        assert!(policy.get("autoApprovers").is_none());

        options.listener = Listener::Serve { service: "svc:api".to_owned(), tailnet: "t.ts.net".to_owned() };
        options.mode = Mode::Noauth;
        let policy = read(&options);
        assert_eq!(policy["grants"][0]["dst"], serde_json::json!(["tag:p", "svc:api"]));
        assert_eq!(policy["autoApprovers"]["services"]["svc:api"][0], "tag:p");
        assert!(policy["grants"][0].get("app").is_none());
    }
}
