//! `tailpod proxy classify`: what a request is about, as the proxy and kube-apiserver see it.

use std::io::{self, BufRead};

use anyhow::{Context, anyhow};
use hyper::Method;
use serde::Serialize;

use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};
use crate::proxy::route::{self, BadPath, Kind, RequestInfo, Route};

/// Which requests.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Say what requests are about, as kube-apiserver sees them.\n\n\
        Shows the verb, the resource and whether the request is a session that can be recorded, one that cannot, or \
        anything else; whether its path can be read in more than one way, which is refused while requests are recorded; \
        and the target that would be sent. Asks nobody and changes nothing.",
    after_long_help = "\
Examples:
  tailpod proxy classify 'POST /api/v1/namespaces/prod/pods/web-0/exec?command=sh'
  tailpod proxy classify 'GET /api/v1/nodes/n1/proxy//exec/prod/web-0/app'
  tailpod proxy classify --json < requests       One a line; one JSON object a line comes back"
)]
pub(super) struct Args {
    /// Method and target, as in a request line; without any, they are read from standard input, one a line
    #[arg(value_name = "'METHOD TARGET'")]
    requests: Vec<String>,
}

/// What is known about one request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_canonical: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// What kube-apiserver makes of it; incomplete when there is an error beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_info: Option<&'a RequestInfo>,
}

/// Classifies what is given, or each line of standard input.
pub(super) fn run(args: &Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let mut shown = Shown::new();
    for request in &args.requests {
        shown.show(request.as_bytes(), out)?;
    }
    if args.requests.is_empty() {
        for line in io::stdin().lock().split(b'\n') {
            shown.show(&line.context("cannot read standard input")?, out)?;
        }
    }
    shown.finish(out)?;
    Ok(ExitStatus::Done)
}

/// One object a line, or one table at the end.
struct Shown {
    table: Table,
}

impl Shown {
    fn new() -> Self {
        let columns = ["request", "kind", "verb", "resource", "name", "path"].map(Column::Text);
        Self { table: Table::new(&columns) }
    }

    fn show(&mut self, request: &[u8], out: &Output) -> anyhow::Result<()> {
        let (method, target) = parse(request)?;
        let route = route::classify(&method, target);
        if out.is_json() {
            return out.json_line(&line(&route));
        }
        let request = String::from_utf8_lossy(request).into_owned();
        let row = match &route {
            Ok(route) => [
                request,
                kind(route.kind).to_owned(),
                route.info.verb.clone(),
                [route.info.resource.as_str(), &route.info.subresource].join("/").trim_end_matches('/').to_owned(),
                route.info.name.clone(),
                if route.is_canonical() { "canonical" } else { "ambiguous" }.to_owned(),
            ],
            Err(bad) => {
                [request, format!("refused: {bad}"), String::new(), String::new(), String::new(), String::new()]
            }
        };
        self.table.row(row);
        Ok(())
    }

    fn finish(self, out: &Output) -> anyhow::Result<()> {
        if self.table.is_empty() { Ok(()) } else { out.data(self.table.render()) }
    }
}

fn line(route: &Result<Route, BadPath>) -> Line<'_> {
    match route {
        Ok(route) => Line {
            error: route.derived.err().map(|problem| problem.to_string()),
            kind: Some(kind(route.kind)),
            is_canonical: Some(route.is_canonical()),
            target: Some(String::from_utf8_lossy(route.target()).into_owned()),
            request_info: Some(&route.info),
        },
        Err(bad) => {
            Line { error: Some(bad.to_string()), kind: None, is_canonical: None, target: None, request_info: None }
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Session(session) => session.name(),
        Kind::NodeCommand => "node command",
        Kind::Unrecordable(what) => what,
        Kind::Other => "other",
    }
}

/// `METHOD TARGET`
fn parse(request: &[u8]) -> anyhow::Result<(Method, &[u8])> {
    let split = request.iter().position(|byte| *byte == b' ').map(|at| (&request[..at], &request[at + 1..]));
    let parsed = split.and_then(|(method, target)| Some((Method::from_bytes(method).ok()?, target)));
    parsed.ok_or_else(|| {
        anyhow!("{:?} is not a request; expected a method, a blank and a target", String::from_utf8_lossy(request))
            .exit_with(ExitStatus::Usage)
    })
}
