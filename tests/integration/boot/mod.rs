//! `boot` through the front door: the acceptance scenarios of boot.md 12 under their own numbers, run as
//! `containerboot`; what `tailpod boot` does better; the weaknesses of upstream that neither has; bad input.

mod auth;
mod bad_input;
mod check;
mod differences;
mod forward;
mod http;
mod kube;
mod modes;
mod onestep;
mod reissue;
mod serve;
mod settings;
mod stop;
mod tailpod;
mod weaknesses;
