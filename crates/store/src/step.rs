//! Crash points: the tests copy the arena's file at each. Nothing outside tests.

/// What a test does at a crash point.
#[cfg(test)]
pub(crate) type Hook = Box<dyn FnMut(&'static str)>;

#[cfg(test)]
thread_local! {
    pub(crate) static HOOK: std::cell::RefCell<Option<Hook>> =
        const { std::cell::RefCell::new(None) };
}

/// Between two stores that a crash may separate.
#[inline(always)]
pub(crate) fn step(_name: &'static str) {
    #[cfg(test)]
    HOOK.with(|h| {
        let Ok(mut h) = h.try_borrow_mut() else { return };
        if let Some(f) = h.as_mut() {
            f(_name);
        }
    });
}
