//! What the writer sends when, with a node that refuses, falls silent and remembers on command.

use super::super::fake::{FakeNode, groups_of};
use super::*;
use crate::clock;
use crate::wire::{error_reply, frame, reply_to};
use dspm_proto::message::{self, Ack, Outcome, OutcomeReply, SnapshotReply};
use dspm_proto::{DatasetId, Generation, GroupId, Header, PAGE_SIZE, PageNo, Refusal};
use dspm_txn::dataset::{Change, Intent, PageBuf, Snapshot};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

static ZEROS: PageBuf = [0; PAGE_SIZE];

/// What becomes of a record that is sent: an acknowledgement, a refusal, or nothing.
#[derive(Clone, Copy, PartialEq)]
enum Reply {
    Held,
    Fenced,
    Silence,
    Full,
}

/// A node that keeps a list of what it hears, in short words: what, the group, the LSN.
struct Scripted {
    node: FakeNode,
    heard: Arc<Mutex<Vec<String>>>,
    records: Arc<Mutex<Vec<Record>>>,
}

fn scripted(
    reply: impl Fn(&Record) -> Reply + Send + Sync + 'static,
    committed: impl Fn(GroupId, Lsn) -> bool + Send + Sync + 'static,
) -> Scripted {
    let (heard, records) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (h, r) = (Arc::clone(&heard), Arc::clone(&records));
    let say = move |what: &str, group: GroupId, lsn: Lsn| h.lock().unwrap().push(format!("{what} {group} {lsn}"));
    let own = |header: &Header| Header { store: header.store, ..reply_to(header) };
    let answer = move |header: &Header, meta: &[u8]| match header.kind {
        Kind::Commit => {
            let record = Record::decode(header, meta).unwrap();
            let answer = reply(&record);
            say(if record.is_empty() { "resolves" } else { word(record.part) }, record.group, record.id.lsn);
            let ack = message::encode(&Ack { id: record.id, horizon: Lsn(0) });
            r.lock().unwrap().push(record);
            match answer {
                Reply::Held => Some(frame(own(header), &ack, 0)),
                Reply::Fenced => Some(error_reply(header.kind, header.request, &Error::Refused(Refusal::Fenced))),
                Reply::Full => Some(error_reply(header.kind, header.request, &Error::Refused(Refusal::Full))),
                Reply::Silence => None,
            }
        }
        Kind::Outcome => {
            let asked: Outcome = message::decode(meta).unwrap();
            say("outcome", header.group, asked.id.lsn);
            let reply = OutcomeReply { committed: committed(header.group, asked.id.lsn), ..OutcomeReply::default() };
            Some(frame(reply_to(header), &message::encode(&reply), 0))
        }
        Kind::Snapshot => {
            let tail = RecordId { generation: Generation(1), lsn: Lsn(4), hash: 40 + header.group.0 };
            let state = message::State { tail, ..Default::default() };
            say("shown", header.group, tail.lsn);
            Some(frame(own(header), &message::encode(&SnapshotReply { state, ..Default::default() }), 0))
        }
        Kind::Resolved => {
            let resolved: Resolved = message::decode(meta).unwrap();
            say("told", resolved.participant, resolved.id.lsn);
            None
        }
        Kind::Release => {
            say("released", header.group, Lsn(0));
            None
        }
        _ => None,
    };
    Scripted { node: FakeNode::reading(move |_, h, m| answer(h, m)), heard, records }
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Alone => "alone",
        Part::Prepared => "prepared",
        Part::Decides => "decides",
        Part::Aborts => "aborts",
    }
}

impl Scripted {
    fn heard(&self, count: usize) -> Vec<String> {
        for _ in 0..5_000 {
            if self.heard.lock().unwrap().len() >= count {
                break;
            }
            std::thread::sleep(Duration::from_millis(1)); // a hint has no answer to wait for
        }
        self.heard.lock().unwrap().clone()
    }
}

fn token(group: &GroupClient) -> Token {
    Token { generation: Generation(1), boot: 1, n: 10 + group.entry.group.0 as u32 }
}

/// Groups that hold their leases, reserved at LSN 4.
fn reserved(node: &FakeNode, count: u64) -> Vec<Arc<GroupClient>> {
    let groups = groups_of(node, count);
    for group in &groups {
        let mut state = group.lock();
        let (now, long) = (clock::now(), Duration::from_secs(600));
        let tail = RecordId { generation: Generation(1), lsn: Lsn(4), hash: 40 + group.entry.group.0 };
        assert!(state.holder.granted(token(group), now, long, tail, now));
        state.holder.open(now);
    }
    groups
}

fn snapshots(count: u64) -> Vec<Snapshot> {
    let at = |_| Snapshot { lsn: Lsn(4), size: 0, pin: 4, turn: 0, ticket: None, epoch: 0, past: false };
    (0..count).map(at).collect()
}

fn run(groups: &[Arc<GroupClient>], snapshots: &mut [Snapshot]) -> Result<Lsn, Error> {
    let change = Change { pages: &[(PageNo(0), &ZEROS)], size: PAGE_SIZE as u64 };
    let share = |(group, snapshot): (&'static GroupClient, _)| Share {
        group,
        commit: Commit { snapshot, changes: vec![(DatasetId(group.entry.group.0), &change)] },
    };
    // Leaked: the closure's lifetimes say less than the test knows.
    let groups = groups.iter().map(|g| &**Box::leak(Box::new(g.clone())));
    commit(groups.zip(snapshots).map(share).collect())
}

/// The first three; the participants' may come in any order.
const ALL_SENT: [&str; 3] = ["prepared 2 5", "prepared 3 5", "decides 1 5"];

fn sorted_participants(mut heard: Vec<String>) -> Vec<String> {
    let end = heard.len().min(2);
    heard[..end].sort();
    heard
}

#[test]
fn all_are_prepared_then_decided_then_resolved() {
    let s = scripted(|_| Reply::Held, |_, _| unreachable!("nothing is in doubt"));
    let groups = reserved(&s.node, 3);
    let mut at = snapshots(3);
    assert_eq!(run(&groups, &mut at), Ok(Lsn(5)));
    let rest = ["resolves 2 6", "resolves 3 6", "told 2 5", "told 3 5"];
    let mut heard = sorted_participants(s.heard(7));
    heard[3..].sort(); // a hint may overtake
    assert_eq!(heard, [&ALL_SENT[..], &rest[..]].concat());
    let shown: Vec<_> = at.iter().map(|s| (s.lsn.0, s.size, s.pin)).collect();
    assert_eq!(shown, [(5, 4096, 5), (6, 4096, 6), (6, 4096, 6)]);
    for (group, tail) in groups.iter().zip([5, 6, 6]) {
        let state = group.lock();
        assert!(state.holder.flight().is_none() && state.holder.token() == Some(token(group)));
        assert_eq!(state.holder.tail().lsn.0, tail);
    }
    let records = s.records.lock().unwrap();
    let decision = records.iter().find(|r| r.part == Part::Decides).unwrap();
    for prepared in &records[..2] {
        let Record { group, id, token: under, .. } = prepared;
        let named = Link { group: *group, lsn: id.lsn, hash: 0, token: *under };
        assert!(decision.links.contains(&named), "{named:?}");
        let decider = Link { group: GroupId(1), lsn: Lsn(5), hash: decision.id.hash, token: token(&groups[0]) };
        assert_eq!(prepared.links, [decider]);
        let resolution = records[3..].iter().find(|r| r.group == *group).unwrap();
        assert_eq!((resolution.predecessor, resolution.token, resolution.part), (id.hash, *under, Part::Alone));
    }
}

/// Guards three round trips for any number of groups: what the participants are sent, and asked, goes out before any of
/// them answers. Here none answers before all have heard the same; who waits for an answer first waits until it is silence.
#[test]
fn participants_are_sent_and_asked_side_by_side() {
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let all = Arc::clone(&counts);
    let meets = move |what: usize| {
        all[what].fetch_add(1, Ordering::SeqCst);
        let mut looks = 0..5_000;
        looks.any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            all[what].load(Ordering::SeqCst) >= 3
        })
    };
    let meets = Arc::new(meets);
    let (met, together) = (Arc::clone(&meets), Arc::new(AtomicBool::new(true)));
    let all_met = Arc::clone(&together);
    let held = move |r: &Record| {
        let step = match (r.part, r.is_empty()) {
            (Part::Prepared, _) => 0,
            (_, true) => 1,
            _ => return Reply::Held,
        };
        all_met.fetch_and(met(step), Ordering::SeqCst);
        if step == 0 { Reply::Held } else { Reply::Fenced }
    };
    let asked = Arc::clone(&together);
    let s = scripted(held, move |_, _| {
        asked.fetch_and(meets(2), Ordering::SeqCst);
        true
    });
    let done = run(&reserved(&s.node, 4), &mut snapshots(4));
    assert_eq!(done, Ok(Lsn(5)));
    assert!(together.load(Ordering::SeqCst), "one waited for another: {:?}", s.heard(0));
}

/// Guards the order: a decision that went out before all hold their records could be all that is left of the commit.
#[test]
fn nothing_is_decided_before_all_are_prepared() {
    for reply in [Reply::Fenced, Reply::Silence] {
        let refuse = move |r: &Record| if r.group == GroupId(3) { reply } else { Reply::Held };
        let s = scripted(refuse, |_, _| false);
        let groups = reserved(&s.node, 3);
        let mut at = snapshots(3);
        assert!(matches!(run(&groups, &mut at), Err(Error::Conflict(_) | Error::Refused(Refusal::Fenced))));
        let mut heard = s.heard(5 - usize::from(reply == Reply::Silence));
        heard = sorted_participants(heard);
        heard[2..].sort();
        let released = heard.iter().position(|h| h == "released 1 0").map(|i| heard.remove(i));
        assert!(released.is_some() || reply == Reply::Silence, "without a connection it cannot be said");
        assert_eq!(heard, ["prepared 2 5", "prepared 3 5", "outcome 2 5", "outcome 3 5"]);
        assert!(at.iter().all(|s| (s.lsn, s.size, s.pin) == (Lsn(4), 0, 4)), "the snapshots stay");
        for group in &groups {
            let state = group.lock();
            assert!(state.holder.flight().is_none() && state.holder.token().is_none(), "no lease outlives a doubt");
        }
    }
}

#[test]
fn a_decision_in_doubt_is_asked_for_and_followed() {
    for committed in [true, false] {
        let doubt = |r: &Record| if r.part == Part::Decides { Reply::Silence } else { Reply::Held };
        let s = scripted(doubt, move |_, _| committed);
        let groups = reserved(&s.node, 3);
        let mut at = snapshots(3);
        let done = run(&groups, &mut at);
        let heard = sorted_participants(s.heard(6));
        assert_eq!(heard[..3], ALL_SENT);
        assert_eq!(heard[3], "outcome 1 5");
        if committed {
            assert_eq!(done, Ok(Lsn(5)));
            assert!(heard.contains(&"resolves 2 6".into()) && heard.contains(&"resolves 3 6".into()), "{heard:?}");
            assert_eq!((at[0].lsn, at[1].lsn, at[2].lsn), (Lsn(5), Lsn(6), Lsn(6)));
        } else {
            assert!(matches!(done, Err(Error::Conflict(_))), "{done:?}");
            assert!(heard.contains(&"outcome 2 5".into()) && heard.contains(&"outcome 3 5".into()), "{heard:?}");
            assert!(!heard.iter().any(|h| h.starts_with("resolves")), "{heard:?}");
        }
    }
}

/// Somebody else may have written another resolution: what the prepared record came to is asked, not what this one did.
#[test]
fn a_resolution_in_doubt_is_asked_for_by_its_prepared_record() {
    for reply in [Reply::Fenced, Reply::Silence] {
        let refuse = move |r: &Record| if r.is_empty() && r.group == GroupId(2) { reply } else { Reply::Held };
        let s = scripted(refuse, |_, _| true);
        let groups = reserved(&s.node, 3);
        let mut at = snapshots(3);
        assert_eq!(run(&groups, &mut at), Ok(Lsn(5)));
        let heard = s.heard(7);
        assert!(heard.contains(&"outcome 2 5".into()) && !heard.contains(&"outcome 2 6".into()), "{heard:?}");
        assert_eq!((at[1].lsn, at[1].size), (Lsn(6), 4096));
        let state = groups[1].lock();
        assert!(state.holder.flight().is_none() && state.holder.token().is_none());
        assert_eq!(state.holder.tail().lsn, Lsn(4), "whose resolution it is, is not known");
        drop(state);
        let mut page = [1; PAGE_SIZE];
        let cache = &groups[1].client.cache;
        assert!(cache.read(DatasetId(2), PageNo(0), Lsn(6), 0, &mut page) && page == ZEROS, "the commit's own page");
    }
}

/// Guards readers beside a commit that waits for room: the decider takes its record only when a participant was read.
#[test]
fn who_reads_a_participant_does_not_wait_for_the_decider() {
    let read = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&read);
    let full = move |r: &Record| match r.part {
        Part::Decides if !asked.load(Ordering::SeqCst) => Reply::Full,
        _ => Reply::Held,
    };
    let s = scripted(full, |_, _| unreachable!("nothing is in doubt"));
    let groups = reserved(&s.node, 2);
    let (participant, heard) = (groups[1].clone(), s.heard.clone());
    let reader = std::thread::spawn(move || {
        while !heard.lock().unwrap().iter().any(|h| h == "decides 1 5") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let shown = participant.begin(DatasetId(2), Intent::Read).unwrap();
        read.store(true, Ordering::SeqCst);
        shown.lsn
    });
    assert_eq!(run(&groups, &mut snapshots(2)), Ok(Lsn(5)));
    assert_eq!(reader.join().unwrap(), Lsn(4), "before the commit");
    assert_eq!(groups[1].lock().holder.tail().lsn, Lsn(6));
}

/// A lie, or a loss beyond what copies cover: it is neither a yes nor a no.
#[test]
fn what_is_resolved_against_its_decision_is_unknown() {
    let refuse = |r: &Record| if r.is_empty() { Reply::Fenced } else { Reply::Held };
    let s = scripted(refuse, |_, _| false);
    let groups = reserved(&s.node, 2);
    assert!(matches!(run(&groups, &mut snapshots(2)), Err(Error::OutcomeUnknown(_))));
    assert!(groups[0].lock().holder.token().is_none(), "nothing goes out behind a decision that is not resolved");
}

#[test]
fn what_cannot_commit_together_is_refused_before_anything_is_sent() {
    let s = scripted(|_| Reply::Held, |_, _| true);
    let (groups, others) = (reserved(&s.node, 2), reserved(&s.node, 2));
    let refused = |groups: &[Arc<GroupClient>], why: &str| {
        let done = run(groups, &mut snapshots(groups.len() as u64));
        assert!(matches!(&done, Err(Error::Usage(text)) if text.contains(why)), "{done:?}");
    };
    refused(&[groups[0].clone(), others[1].clone()], "two clusters");
    refused(&[groups[0].clone(), groups[1].clone(), groups[0].clone()], "twice");
    refused(&reserved(&s.node, 130), "at most 129");
    // The second one's lease went.
    groups[1].lock().holder.close(clock::now());
    let mut at = snapshots(2);
    assert!(matches!(run(&groups, &mut at), Err(Error::Conflict(_))));
    assert_eq!(s.heard(0), Vec::<String>::new());
}
