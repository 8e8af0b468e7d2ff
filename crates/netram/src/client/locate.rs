//! From a name to a group: any node is asked, nodes know the placement. Clients never speak HTTP.

use super::core::Client;
use super::group::GroupClient;
use crate::wire::{from_json, json};
use dspm_proto::control::{Control, CreateOptions, DatasetEntry, Done, Listing, Located};
use dspm_proto::{Error, Header, Kind};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Client {
    /// Asks any node of the configuration; goes on with the next one while one does not answer.
    ///
    /// # Errors
    /// What the node answered; [`Error::Unavailable`] when none answers within `commit_timeout`.
    pub fn control<T: DeserializeOwned>(&self, question: &Control) -> Result<T, Error> {
        let most = self.options.commit_timeout;
        self.control_until(question, Instant::now() + most, most)
    }

    /// The same until a deadline, waiting for each node at most for `patience`.
    pub(crate) fn control_until<T: DeserializeOwned>(
        &self,
        question: &Control,
        deadline: Instant,
        patience: Duration,
    ) -> Result<T, Error> {
        let meta = json(question);
        loop {
            let mut last = Error::Unavailable("no node is configured".into());
            for address in &self.options.nodes {
                let link = self.link(address);
                self.count_round_trip();
                let dialer = || self.dialer(false);
                let until = deadline.min(Instant::now() + patience);
                match link.ask(dialer, Header::new(Kind::Control), &meta, until) {
                    Ok(answer) => return from_json(&answer.meta),
                    Err(e @ Error::Unavailable(_)) => last = e,
                    Err(e) => return Err(e),
                }
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where a dataset is, created first if it is missing and `create` says how.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of [`Client::control`].
    pub fn locate(&self, name: &str, create: Option<CreateOptions>) -> Result<Located, Error> {
        self.control(&Control::Locate { name: name.to_owned(), create })
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
        self.control::<Done>(&Control::Remove { name: name.to_owned() }).map(|_| ())
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
}
