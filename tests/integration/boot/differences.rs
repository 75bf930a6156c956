//! The README's table of differences from containerboot: each row has a test that upstream's behaviour fails.
//!
//! [`ROWS`] says which; what no other file tests is tested here.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tailpod::sandbox::DaemonScript;

use crate::support::{READY, Scene, free_port, get, http, running, state};

/// The rows by their first column, in the README's order, and the tests that hold them.
const ROWS: [(&str, &[&str]); 42] = [
    (
        "tailscaled dies by itself",
        &[
            "boot::stop::s58_daemon_dies_after_ready",
            "boot::tailpod::a_killed_daemon_is_restarted_in_place",
            "boot::tailpod::five_deaths_are_enough",
        ],
    ),
    (
        "tailscaled dies before its socket exists",
        &[
            "boot::stop::s58_daemon_dies_before_its_socket",
            "boot::differences::an_early_death_is_no_reason_to_try_again",
        ],
    ),
    (
        "stale socket file",
        &["boot::weaknesses::w07_a_stale_socket_is_no_daemon", "boot::tailpod::a_killed_daemon_is_restarted_in_place"],
    ),
    (
        "auth key, client secret, id token",
        &[
            "boot::tailpod::a_literal_key_travels_in_a_request_only",
            "boot::tailpod::what_only_the_cli_knows_goes_through_files_in_memory",
        ],
    ),
    (
        "which login is tried first",
        &[
            "boot::tailpod::a_good_identity_never_uses_the_key",
            "boot::tailpod::keys_are_tried_in_the_order_of_their_sources",
        ],
    ),
    (
        "failed login",
        &["boot::tailpod::refused_keys_have_their_exit_codes", "boot::tailpod::containerboot_knows_no_classes"],
    ),
    (
        "interactive login, device approval",
        &[
            "boot::weaknesses::w19_the_login_url_is_a_line_of_boot",
            "boot::weaknesses::w19_the_deadline_waits_for_a_human",
            "boot::differences::the_deadline_waits_for_an_approval",
        ],
    ),
    (
        "changed settings on an existing node",
        &[
            "boot::weaknesses::w20_the_clis_refusal_is_explained",
            "boot::tailpod::changed_settings_are_applied_and_told",
        ],
    ),
    (
        "a state other than Running",
        &[
            "boot::weaknesses::w11_a_short_excursion_is_tolerated_by_tailpod",
            "boot::machine::tests::tailpod_tolerates_an_excursion",
            "boot::tailpod::keys_are_tried_in_the_order_of_their_sources",
        ],
    ),
    (
        "reissue on a failed login",
        &[
            "boot::weaknesses::w13_a_needs_login_that_passes_asks_for_nothing",
            "boot::weaknesses::w13_the_daemon_is_stopped_before_its_identity_goes",
            "boot::weaknesses::w13_a_removal_that_fails_is_repeated",
            "boot::machine::tests::tailpod_asks_for_a_key_only_when_the_failure_persists",
            "localapi_scenarios::s20_trouble_on_the_way_to_control",
        ],
    ),
    (
        "trouble on the way to control, however long",
        &[
            "localapi_scenarios::s20_trouble_on_the_way_to_control",
            "boot::machine::tests::trouble_on_the_way_to_control_is_not_a_dead_key",
        ],
    ),
    ("reissue without the operator", &["boot::tailpod::a_refused_key_of_the_secret_is_reissued_there"]),
    (
        "stop signal",
        &[
            "boot::weaknesses::w09_stop_while_the_secret_is_being_read",
            "boot::weaknesses::w09_stop_while_waiting_for_the_socket",
            "boot::weaknesses::w09_a_second_signal_shortens_the_grace",
            "boot::reissue::s41_stop_during_the_wait",
        ],
    ),
    ("fatal error in a helper", &["boot::weaknesses::w10_a_port_in_use_still_stops_the_daemon"]),
    ("zombies of other processes", &["boot::stop::s58_orphans_are_reaped"]),
    (
        "API server: timeout, 401, 409, 429, 5xx",
        &[
            "boot::bad_input::an_api_server_in_trouble_for_a_moment_does_not_matter",
            "boot::kube::s62_token_rotation",
            "boot::weaknesses::w14_an_outage_in_the_steady_state_loses_nothing",
        ],
    ),
    (
        "`/healthz`",
        &[
            "boot::weaknesses::w15_health_drops_when_the_bus_is_lost",
            "boot::differences::health_drops_while_the_node_is_not_running",
            "localapi::scenario_13_a_daemon_that_hangs_is_given_up_after_two_probes",
        ],
    ),
    (
        "local HTTP",
        &[
            "health::server::tests::slow_clients_are_cut_off_and_quick_ones_are_not",
            "boot::http::s44_metrics_with_a_debug_address",
            "boot::differences::headers_that_nobody_listed_stay_outside",
        ],
    ),
    (
        "config reload",
        &[
            "boot::weaknesses::w12_a_plain_file_is_reloaded",
            "boot::weaknesses::w12_a_change_during_the_login_is_not_lost",
        ],
    ),
    (
        "unknown keys in the config file",
        &["boot::onestep::s36_bad_config_file", "boot::differences::unknown_config_keys_are_a_warning"],
    ),
    ("more than one profile in the Secret", &["boot::weaknesses::w27_two_profiles_are_consistent"]),
    ("socket link", &["boot::weaknesses::w22_an_old_link_is_replaced"]),
    ("unparsable truth value, mistyped name", &["boot::differences::mistyped_values_and_names_are_spoken_of"]),
    (
        "`TS_KUBE_SECRET` outside Kubernetes",
        &[
            "boot::weaknesses::w29_a_secret_outside_of_kubernetes_is_explained",
            "boot::differences::a_cluster_is_reached_from_outside",
        ],
    ),
    ("\"No authkey found\" in the log", &["boot::weaknesses::w18_no_authkey_found_is_said_only_then"]),
    (
        "operations after login",
        &[
            "boot::weaknesses::w31_a_hung_operation_has_a_deadline",
            "boot::weaknesses::w31_a_hung_change_of_settings_has_a_deadline",
        ],
    ),
    ("several wrong settings", &["boot::settings::all_problems_are_told_at_once"]),
    ("arguments", &["cli::containerboot_takes_no_arguments"]),
    (
        "serve config at start",
        &[
            "boot::serve::config::w26_a_restart_changes_only_what_differs",
            "boot::serve::config::services_of_a_former_run_are_set_again",
        ],
    ),
    (
        "serve config that cannot be read or applied",
        &[
            "boot::serve::config::s50_an_odd_file_is_spoken_of_and_the_old_config_stays",
            "boot::serve::config::a_bad_serve_config_is_in_health_and_metrics",
            "boot::serve::config::s50_strict_tailpod_ends_with_a_broken_file",
        ],
    ),
    ("serve config that needs HTTPS", &["boot::serve::config::s48_https_is_held_back_while_the_tailnet_has_none"]),
    (
        "serve config on the way to the daemon",
        &[
            "serve::l15_w17_a_config_that_others_change_is_read_again",
            "serve::a_port_changes_its_kind_in_two_steps_and_foreground_sessions_stay",
        ],
    ),
    (
        "advertised Services",
        &[
            "boot::serve::services::s51_cw12_services_are_advertised_once_and_nothing_waits_for_it",
            "boot::serve::services::w03_cw12_a_busy_tailnet_changes_nothing",
            "boot::serve::services::w04_cw12_an_edit_is_advertised_and_what_vanished_is_withdrawn",
            "boot::serve::hold_back::a_service_on_443_alone_waits_for_its_secret",
        ],
    ),
    ("advertised Services on stop", &["boot::serve::services::w30_services_advertised_by_hand_survive_a_restart"]),
    ("a tailnet target that cannot be found", &["boot::forward::s12_egress_fqdn_appears_late"]),
    (
        "a DNS target",
        &[
            "boot::forward::s59_dns_target",
            "boot::forward::lookup::tests::w17_a_name_that_stays_away_never_becomes_a_busy_loop",
            "boot::forward::lookup::tests::w17_the_lifetime_of_an_answer_is_respected",
        ],
    ),
    ("packet rules", &["boot::forward::n02_only_the_current_address_is_translated", "boot::forward::s09_ingress_ip"]),
    (
        "packet rules that are refused",
        &["boot::forward::s32_rules_that_stay_refused", "boot::forward::s32_write_order_with_rules"],
    ),
    ("egress to one tailnet target", &["boot::forward::n10_our_own_ports_stay_ours_unless_told_otherwise"]),
    (
        "trouble of an HA group: a config that is none, the API server, the firewall",
        &[
            "ha::trouble::ha_13_a_config_that_is_none_leaves_the_last_good_one",
            "ha::trouble::ha_12_an_api_server_in_trouble_delays_the_report_alone",
            "ha::trouble::refused_rules_are_tried_again_and_reported_when_they_are_in_force",
        ],
    ),
    (
        "targets of an HA egress group",
        &[
            "ha::egress::ha_03_a_target_that_appears_later_is_noticed",
            "ha::egress::ha_04_a_tailscale_service_is_followed",
            "ha::egress::ha_05_the_source_follows_the_node",
        ],
    ),
    ("an HA group's drain hook", &["ha::drain::ha_16_an_endpoint_where_nobody_listens_is_no_reason_to_wait"]),
];

/// Where a test of this name is, by what stands before its last `::`.
fn source(module: &str) -> [String; 2] {
    let path = module.trim_end_matches("::tests").replace("::", "/");
    let own = if module.ends_with("::tests") && module.contains("machine") { "/tests" } else { "" };
    [format!("tests/integration/{path}.rs"), format!("src/{path}{own}.rs")]
}

#[test]
fn every_row_of_the_readme_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("a README");
    let (_, section) = readme.split_once("## Differences from containerboot").expect("the section");
    let table = section.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let rows = table.take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(|line| line.split('|').nth(1).unwrap_or_default().trim()).collect();
    assert_eq!(rows, ROWS.map(|(row, _)| row), "README and ROWS");
    for (row, tests) in ROWS {
        for test in tests {
            let (module, name) = test.rsplit_once("::").expect("a module");
            let text = source(module).iter().find_map(|path| std::fs::read_to_string(root.join(path)).ok());
            let text = text.unwrap_or_else(|| panic!("{row}: no file for {test}"));
            let begin = text.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{row}: no test {test}"));
            let before = text[..begin].rsplit("\n\n").next().unwrap_or_default();
            assert!(before.contains("test]") || before.contains("#[tokio::test"), "{row}: {test} is not a test");
        }
    }
}

#[tokio::test]
async fn an_early_death_is_no_reason_to_try_again() {
    let scene = Scene::new().await;
    scene.daemon().script(DaemonScript { exit_before_listening: Some(3), ..DaemonScript::default() });
    let ended = scene.tailpod().ends(1).await;
    assert!(ended.last().contains("exit status 3"), "{}", ended.text());
    assert_eq!(scene.daemon().starts(), 1);
}

#[tokio::test]
async fn the_deadline_waits_for_an_approval() {
    let scene = Scene::new().await.with_all(&[("TS_BOOT_TIMEOUT", "300ms"), ("TAILPOD_LOGIN_TIMEOUT", "1m")]);
    let mut boot = scene.tailpod();
    scene.notify(state(3)).await;
    boot.said("machine authorization required, please visit the admin panel").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    boot.lives();
    scene.notify(running()).await;
    boot.ready().await;
    boot.stops().await;
}

#[tokio::test]
async fn health_drops_while_the_node_is_not_running() {
    let port = free_port();
    let vars = [("TS_ENABLE_HEALTH_CHECK", "true"), ("TS_LOCAL_ADDR_PORT", &*format!("127.0.0.1:{port}"))];
    let scene = Scene::new().await.with_all(&vars);
    let boot = scene.tailpod();
    scene.notify(running()).await;
    boot.ready().await;
    assert_eq!(get(port, "/healthz").await.status, 200);
    scene.notify(state(4)).await;
    boot.said("Setting healthy false").await;
    let (health, live) = (get(port, "/healthz").await, get(port, "/livez").await);
    assert_eq!((health.status, live.status), (503, 200));
    assert!(health.body.contains("Stopped"), "{}", health.body);
    scene.notify(state(6)).await;
    boot.said_times("Setting healthy true", 2).await;
    assert_eq!(get(port, "/healthz").await.status, 200);
    boot.stops().await;
}

#[tokio::test]
async fn headers_that_nobody_listed_stay_outside() {
    let port = free_port();
    let vars = [("TS_ENABLE_METRICS", "true"), ("TS_LOCAL_ADDR_PORT", &*format!("127.0.0.1:{port}"))];
    let scene = Scene::new().await.with_all(&vars);
    let boot = scene.boot();
    boot.said(&format!("Running metrics endpoint at 127.0.0.1:{port}/metrics")).await;
    let headers = "Authorization: Basic eDp5\r\nOrigin: http://evil.example\r\nX-Any: 1\r\nAccept: text/plain\r\n";
    assert_eq!(http(port, "GET", "/metrics", headers).await.status, 200);
    let calls = scene.daemon().calls();
    let call = calls.iter().find(|call| call.endpoint == "usermetrics").expect("a call");
    for header in ["authorization", "origin", "x-any"] {
        assert_eq!(call.header(header), None, "{header}");
    }
    assert_eq!(call.header("accept"), Some("text/plain"));
    boot.stops().await;
}

#[tokio::test]
async fn unknown_config_keys_are_a_warning() {
    let config = json!({"version": "alpha0", "AuthKey": "k", "Surprise": 1}).to_string();
    let (scene, _config) = Scene::new().await.with_config(&[("cap-95.hujson", &config)]);
    let boot = scene.tailpod();
    scene.notify(running()).await;
    boot.ready().await;
    let ended = boot.stops().await;
    assert!(ended.messages().iter().any(|line| line.contains("Surprise")), "{}", ended.text());
}

#[tokio::test]
async fn mistyped_values_and_names_are_spoken_of() {
    let scene = Scene::new().await.with_all(&[("TS_USERSPACE", "flase"), ("TS_HOSTNAM", "x")]);
    for (name, args) in [("containerboot", &[][..]), ("tailpod", &["boot"])] {
        let boot = scene.start(name, args, &[]);
        scene.notify(running()).await;
        boot.ready().await;
        let ended = boot.stops().await;
        let told = "TS_USERSPACE=\"flase\" is not a boolean and counts as true; accepted are 1 t T TRUE true \
                    True 0 f F FALSE false False";
        assert!(ended.mentions(told), "{}", ended.text());
        assert!(ended.mentions("TS_HOSTNAM is not a known variable; the nearest name is TS_HOSTNAME"));
        scene.daemon().forget_last_message();
    }
    let starts = scene.daemon().starts();
    let ended = scene.tailpod_with(&[("TAILPOD_STRICT", "true")]).ends(1).await;
    assert!(ended.mentions("invalid configuration: TS_USERSPACE=\"flase\" is not a boolean"), "{}", ended.text());
    assert_eq!(scene.daemon().starts(), starts);
}

/// boot.md E.5: tailscaled keeps its state on disk, and the Secret mirrors the device.
#[tokio::test]
async fn a_cluster_is_reached_from_outside() {
    let scene = Scene::new().await;
    scene.api().put_secret("default", "tailscale", [("foo", "bar")]);
    let kubeconfig = scene.root().join("etc/kubeconfig");
    let state = scene.root().join("state");
    let scene =
        scene.with("TAILPOD_KUBECONFIG", kubeconfig).with("TS_STATE_DIR", &state).with("TS_KUBE_SECRET", "tailscale");
    let boot = scene.tailpod();
    scene.notify(running()).await;
    let stored = scene.stored(|data| data.contains_key("device_fqdn")).await;
    assert_eq!((stored["device_id"].as_str(), stored["foo"].as_str()), ("myID", "bar"));
    boot.ready().await;
    let daemon = &scene.daemon().command_lines()[0];
    assert!(daemon.contains(&format!("--statedir={}", state.display())) && !daemon.contains("kube:"), "{daemon}");
    assert!(boot.stops().await.says(READY));
}
