//! From a name to a group: any node is asked, nodes know the placement. Clients never speak HTTP.

use super::core::Client;
use super::group::GroupClient;
use crate::wire::{from_json, json};
use dspm_proto::control::{Control, CreateOptions, DatasetEntry, Done, Listing, Located};
use dspm_proto::{Error, Generation, Header, Kind};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a node is waited for at first that is asked where a dataset is.
const AT_FIRST: Duration = Duration::from_secs(1);

impl Client {
    /// Asks any node of the configuration; goes on with the next one while one does not answer.
    ///
    /// # Errors
    /// What the node answered; [`Error::Unavailable`] when none answers within `commit_timeout`.
    pub fn control<T: DeserializeOwned>(&self, question: &Control) -> Result<T, Error> {
        let most = self.options.commit_timeout;
        self.control_until(question, Instant::now() + most, most)
    }

    /// The same until a deadline, waiting for each node at most for `patience`, twice as long in each next round. Who did
    /// not answer lately is asked last. Rounds are short where all nodes refuse connections: the doubling has to end.
    pub(crate) fn control_until<T: DeserializeOwned>(
        &self,
        question: &Control,
        deadline: Instant,
        mut patience: Duration,
    ) -> Result<T, Error> {
        let meta = json(question);
        loop {
            let mut last = Error::Unavailable("no node is configured".into());
            let mut links: Vec<_> = self.options.nodes.iter().map(|a| self.link(a)).collect();
            links.sort_by_key(|l| l.is_down());
            for link in links {
                self.count_round_trip();
                let dialer = || self.dialer(false);
                match link.ask(dialer, Header::new(Kind::Control), &meta, within(deadline, patience)) {
                    Ok(answer) => return from_json(&answer.meta),
                    Err(e @ Error::Unavailable(_)) => last = e,
                    Err(e) => return Err(e),
                }
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
            patience = patience.saturating_mul(2);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where a dataset is, created first if it is missing and `create` says how.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of [`Client::control`].
    pub fn locate(&self, name: &str, create: Option<CreateOptions>) -> Result<Located, Error> {
        let most = self.options.commit_timeout;
        // What may be asked twice is not left to a node that stands still.
        let patience = if create.as_ref().is_some_and(|c| c.exclusive) { most } else { most.min(AT_FIRST) };
        self.control_until(&Control::Locate { name: name.to_owned(), create }, Instant::now() + most, patience)
    }

    /// Where a dataset is now: what the first node says that knows a newer generation of its set than `known`, else the
    /// newest that any says. Each node is asked once, for at most `patience`; who did not answer lately is asked last.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody knows it and somebody says so; [`Error::Unavailable`] when nobody answers.
    pub(crate) fn locate_newer(
        &self,
        name: &str,
        known: Generation,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Located, Error> {
        let meta = json(&Control::Locate { name: name.to_owned(), create: None });
        let mut links: Vec<_> = self.options.nodes.iter().map(|a| self.link(a)).collect();
        links.sort_by_key(|l| l.is_down());
        let mut best: Result<Located, Error> = Err(Error::Unavailable("no node is configured".into()));
        for link in links {
            let until = within(deadline, patience);
            let answer = link.ask(|| self.dialer(false), Header::new(Kind::Control), &meta, until);
            let located = answer.and_then(|a| from_json::<Located>(&a.meta));
            match (located, &best) {
                (Ok(l), _) if l.set.generation > known => return Ok(l),
                (Ok(l), Ok(b)) if l.set.generation <= b.set.generation => {}
                (Ok(l), _) => best = Ok(l),
                (Err(e @ Error::NotFound(_)), Err(_)) => best = Err(e),
                (Err(e), Err(Error::Unavailable(_))) => best = Err(e),
                (Err(_), _) => {}
            }
        }
        best
    }

    /// The catalog, by name, page by page: what is created, renamed or removed meanwhile may be there or not.
    ///
    /// # Errors
    /// Those of [`Client::control`].
    pub fn list(&self) -> Result<Vec<DatasetEntry>, Error> {
        let most = self.options.commit_timeout;
        self.list_until(Instant::now() + most, most)
    }

    /// The same until a deadline, waiting for each node at most for `patience`. A node that always says that there is
    /// more is not believed for ever: each page has an entry, so there are no more pages than entries.
    pub(crate) fn list_until(&self, deadline: Instant, patience: Duration) -> Result<Vec<DatasetEntry>, Error> {
        let (mut all, mut after, mut view) = (Vec::<DatasetEntry>::new(), String::new(), 0);
        let (mut pages, mut pages_max) = (0, 0);
        loop {
            let question = Control::List { after: after.clone(), limit: 0, view };
            let page: Listing = self.control_until(&question, deadline, patience)?;
            view = page.view.map_or(view, |v| v.version);
            let in_order = page.datasets.iter().all(|d| std::mem::replace(&mut after, d.name.clone()) < d.name);
            if !in_order || (page.more && page.datasets.is_empty()) {
                return Err(Error::Protocol("a page of the catalog does not follow the one before it".into()));
            }
            all.extend(page.datasets);
            if !page.more {
                return Ok(all);
            }
            (pages, pages_max) = (pages + 1, page.count.max(pages_max)); // entries may come and go meanwhile
            if pages >= pages_max {
                let text = format!("a catalog of {pages_max} datasets that goes on after {pages} pages");
                return Err(Error::Protocol(text));
            }
            if Instant::now() >= deadline {
                return Err(Error::Unavailable(format!("the catalog did not end in time, after {pages} pages")));
            }
        }
    }

    /// Removes a dataset.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of [`Client::control`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.control::<Done>(&Control::Remove { name: name.to_owned(), accept_loss: false }).map(|_| ())
    }

    /// The process's one object of the located group.
    pub(crate) fn group(self: &Arc<Self>, located: Located) -> Result<Arc<GroupClient>, Error> {
        let mut groups = self.groups();
        if let Some(g) = groups.get(&located.entry.group) {
            return Ok(g.clone());
        }
        let group = Arc::new(GroupClient::new(self, located)?);
        groups.insert(group.entry.group, group.clone());
        Ok(group)
    }
}

/// The end of a wait that begins now.
fn within(deadline: Instant, patience: Duration) -> Instant {
    Instant::now().checked_add(patience).map_or(deadline, |end| end.min(deadline))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeNode, entry, group_of};
    use super::*;
    use crate::wire::{frame, reply_to};

    /// A node with a page of one dataset for each question, and always one more.
    fn endless(count: u64) -> FakeNode {
        FakeNode::start(move |before, h| {
            let datasets = vec![entry(&format!("{before:09}"))];
            let listing = Listing { datasets, more: true, count, view: None };
            (h.kind == Kind::Control).then(|| frame(reply_to(h), &json(&listing), 0))
        })
    }

    fn list(node: &FakeNode, most: Duration) -> Result<Vec<DatasetEntry>, Error> {
        group_of(node).client.list_until(Instant::now() + most, most)
    }

    #[test]
    fn a_catalog_has_no_more_pages_than_datasets() {
        let node = endless(7);
        let answer = list(&node, Duration::from_secs(600));
        assert!(matches!(&answer, Err(Error::Protocol(why)) if why.contains("7 datasets")), "{answer:?}");
        assert_eq!(node.asked().len(), 7);
    }

    #[test]
    fn a_catalog_that_never_ends_is_not_read_beyond_the_deadline() {
        let node = endless(u64::MAX);
        let answer = list(&node, Duration::from_millis(200));
        assert!(matches!(&answer, Err(Error::Unavailable(why)) if why.contains("did not end")), "{answer:?}");
    }

    #[test]
    fn nodes_that_refuse_connections_are_asked_until_the_deadline_however_long_the_patience_has_become() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let group = group_of(&FakeNode { address: closed.to_string(), asked: Arc::default() });
        let deadline = Instant::now() + Duration::from_millis(200);
        let question = Control::List { after: String::new(), limit: 0, view: 0 };
        let answer: Result<Listing, Error> = group.client.control_until(&question, deadline, Duration::MAX / 2);
        assert!(matches!(&answer, Err(Error::Unavailable(_))), "{answer:?}");
    }
}
