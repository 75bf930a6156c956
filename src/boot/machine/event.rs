//! What the machine hears and what it answers. Pure.

use std::net::IpAddr;

use super::{BusUpdate, Device, Forwarding, LoginSource};
use crate::boot::login_failure::LoginFailure;
use crate::node::update::News;

/// How a child ended, as the message shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death(pub String);

/// Why a try to log in did not even start, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The source holds nothing (no file, no such Secret key): try the next one.
    Unavailable(String),
    /// It was tried and refused; the daemon's or the CLI's words.
    Refused(String),
    /// The deadline or a stop ended it.
    Interrupted,
}

/// What happened in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// tailscaled accepts connections.
    Listening,
    /// tailscaled could not be started, or the wait for its socket failed.
    NotStarted(String),
    /// How tailscaled is to be started has changed, so another one shall replace it.
    Replace,
    /// tailscaled has exited.
    DaemonExited(Death),
    /// A bus message.
    Bus(BusUpdate),
    /// The bus ended or cannot be opened; it is being re-opened.
    BusLost(String),
    /// The bus is open.
    BusOpened,
    /// `tailscale up` ended (containerboot).
    UpFinished(Result<(), String>),
    /// `tailscale set` ended (containerboot).
    SetFinished(Result<(), String>),
    /// A login was handed to the daemon, or could not be (tailpod).
    LoginSubmitted(Result<(), LoginError>),
    /// Prefs were compared and changed (tailpod).
    PrefsApplied(Result<(), String>),
    /// What a former run served was taken away (containerboot).
    ServeConfigCleared(Result<(), String>),
    /// The Secret's `authkey` was deleted.
    AuthKeyDeleted(Result<(), String>),
    /// How packets can be filtered is known, or why they cannot.
    FirewallOpened(Result<(), String>),
    /// The device's id is in the Secret.
    IdWritten,
    /// It is not, and will be retried.
    IdDelayed,
    /// The node's packet rules.
    Forwarding(Forwarding),
    /// The device keys of the last [`Action::Publish`] are in the Secret.
    Published,
    /// They are not, and will be retried.
    PublishDelayed,
    /// They never will be: permission is missing.
    PublishDenied(String),
    /// The reissue request is in the Secret and a new key arrived, or not.
    NewKey(Result<(), String>),
    /// The identity keys are gone from the Secret, or not.
    IdentityCleared(Result<(), String>),
    /// A side task failed in a way that ends the boot.
    SideFailed(String),
    /// SIGTERM or SIGINT.
    Signal,
    /// [`Boot::deadline`](super::Boot::deadline) has passed.
    Tick,
}

impl From<News> for Event {
    fn from(news: News) -> Self {
        match news {
            News::Opened => Self::BusOpened,
            News::Update(update) => Self::Bus(update),
            News::Lost(reason) => Self::BusLost(reason),
        }
    }
}

/// What the shell shall do. Actions are performed in order; none blocks the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Log one line.
    Log(Level, String),
    /// Start the local HTTP listeners (once per process).
    ServeHttp,
    /// LocalAPI `set-udp-gro-forwarding`.
    TuneGro,
    /// Link the default socket path.
    LinkSocket,
    /// Open the bus, replacing an open one.
    WatchBus,
    /// Run `tailscale up`.
    RunUp,
    /// Run `tailscale set`.
    RunSet,
    /// Log in with this (tailpod).
    Login(LoginSource),
    /// Compare prefs with the settings and change what differs (tailpod).
    ApplyPrefs,
    /// Take away what a former run served (containerboot).
    ClearServeConfig,
    /// Delete `authkey` from the Secret.
    DeleteAuthKey,
    /// Find out how packets can be filtered (once per process).
    OpenFirewall,
    /// Write the device's id: before anything is routed to it.
    PublishId(String),
    /// Bring the packet rules to what these addresses of the node ask for, and keep them so.
    Forward(Vec<IpAddr>),
    /// Write these device keys, id first (boot.md 5.4).
    Publish(Device),
    /// Watch the config file and have the daemon reload it.
    WatchConfig,
    /// Follow the serve config and advertise its Services (once per process).
    Serve,
    /// Serve the Services of an HA group (once per process).
    ServeGroup,
    /// Disconnect from control, set the reissue marker, wait for a new key.
    RequestReissue,
    /// Stop tailscaled; its end is then expected.
    StopDaemon,
    /// Remove the identity from the Secret and verify.
    ClearIdentity,
    /// Start tailscaled again.
    SpawnDaemon,
    /// Tell the cluster (best effort).
    Announce(Announcement),
    /// Leave: the orderly shutdown, then this outcome.
    Stop(Outcome),
}

/// A Kubernetes Event on the Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// UpperCamelCase reason.
    pub reason: &'static str,
    /// One sentence for a person.
    pub message: String,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Part of the story.
    Info,
    /// Needs attention.
    Warn,
}

/// How a boot ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stopped because asked: exit 0.
    Requested,
    /// A new auth key arrived and a restart will use it: exit 0.
    Reissued,
    /// The operation failed: exit 1.
    Failed(String),
    /// The login failed in a known way: the class's own exit code (tailpod).
    LoginFailed(LoginFailure),
}
