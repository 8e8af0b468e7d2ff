//! The node's figures in OpenMetrics text, over HTTP at `/metrics`: sums over all datasets, never a line for each.

use super::node::Node;
use dspm_proto::Error;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Serves the figures; answers host:port, empty when none is wanted.
///
/// # Errors
/// [`Error::Failed`] when the address cannot be listened on.
pub(crate) fn serve(node: &Arc<Node>) -> Result<String, Error> {
    let Some(listen) = &node.options.metrics else { return Ok(String::new()) };
    let server = tiny_http::Server::http(listen.as_str())
        .map_err(|e| Error::Failed(format!("cannot listen on {listen} for metrics: {e}")))?;
    let url = server.server_addr().to_string();
    let node = node.clone();
    std::thread::Builder::new().name("metrics".into()).spawn(move || {
        for request in server.incoming_requests() {
            let _ = match request.url() {
                "/metrics" => request.respond(answer(&node)),
                _ => request.respond(tiny_http::Response::from_string("see /metrics\n").with_status_code(404)),
            };
        }
    })?;
    Ok(url)
}

fn answer(node: &Node) -> tiny_http::Response<std::io::Cursor<Vec<u8>>> {
    let mut text = String::new();
    let status = match encode(&mut text, &registry(node)) {
        Ok(()) => 200,
        Err(_) => 500,
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let header = tiny_http::Header::from_bytes("Content-Type", kind);
    let response = tiny_http::Response::from_string(text).with_status_code(status);
    header.into_iter().fold(response, |r, h| r.with_header(h))
}

fn registry(node: &Node) -> Registry {
    let mut all = Registry::with_prefix("dspm");
    let c = &node.counters;
    let usage = node.store.usage();
    let count = |v: &AtomicU64| ConstCounter::new(v.load(Ordering::Relaxed));
    all.register("commits", "Commit records received", count(&c.commits));
    let sent_back = count(&c.without_room);
    all.register("commits_without_room", "Commit records sent back for want of room; their writers wait", sent_back);
    all.register("pages_read", "Pages asked for", count(&c.pages_read));
    all.register("pages_copied", "Pages that came to groups that this node joins", count(&c.pages_copied));
    all.register("snapshots", "Snapshots asked for", count(&c.snapshots));
    let asked = count(&c.inquiries);
    all.register("inquiries", "Questions of prepared records for what became of their transaction", asked);
    all.register("alarms", "Things that cannot happen and did", count(&c.alarms));
    let bad = usage.checksum_errors + c.checksum_errors.load(Ordering::Relaxed);
    all.register("checksum_errors", "Bad copies met and not used", ConstCounter::new(bad));
    all.register("frames", "Frames of the arena", ConstGauge::new(usage.frames as i64));
    all.register("frames_used", "Frames in use", ConstGauge::new(usage.used as i64));
    all.register("frames_dirty", "Frames not yet on the disk", ConstGauge::new(usage.dirty as i64));
    all.register("datasets", "Datasets of the catalog", ConstGauge::new(node.catalog().count() as i64));
    all.register("groups", "Groups open", ConstGauge::new(node.open_group_count() as i64));
    all
}
