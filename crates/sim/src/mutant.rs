//! Deliberate faults: one rule each, switched off at run time. A simulator that does not catch them proves nothing.
//!
//! They live in the runtimes around the state machines (the node's in `sabotage`, the client's where it breaks its
//! own rule), never in the machines.

macro_rules! mutants {
    ($($name:ident $text:literal $rule:literal $how:ident,)*) => {
        /// A rule that is broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // the rule of each is its text
        pub enum Mutant { $($name,)* }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$name => $text,)* }
            }

            /// What goes wrong.
            pub fn rule(self) -> &'static str {
                match self { $(Mutant::$name => $rule,)* }
            }

            /// Where it is looked for.
            pub fn hunt(self) -> Hunt {
                match self { $(Mutant::$name => Hunt::$how,)* }
            }
        }
    };
}

/// How a mutant is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hunt {
    /// By random runs, then by the directed schedules.
    Random,
    /// By the directed schedules: random runs meet it too rarely, or never while the clients keep their rules.
    Directed,
}

mutants! {
    FenceVolatile "fence_volatile" "a restart forgets the fence that was answered" Directed,
    BootKept "boot_kept" "a restart does not raise the boot number: tokens come again" Random,
    StoreKept "store_kept" "the store id survives the loss of memory" Directed,
    OutcomeNoSettle "outcome_no_settle" "an outcome is answered without a settle" Random,
    OutcomeForgotten "outcome_forgotten" "what became of a record that nobody remembers is answered with 'not committed'" Directed,
    NotRechecked "not_rechecked" "a record is checked on arrival only, not when it is published" Random,
    DuplicateByToken "duplicate_by_token" "a duplicate is recognised by token and LSN only" Directed,
    NoBackupFence "no_backup_fence" "a settle does not fence the backups" Random,
    NoFence "no_fence" "publication does not look at the fence: a record of any token is taken" Random,
    FenceGoesBack "fence_goes_back" "a member obeys an older token's fence" Directed,
    OwnTailOnly "own_tail_only" "a settle takes the primary's tail, not the longest" Random,
    SettleNotAll "settle_not_all" "a settle completes on all members but one" Random,
    CompleteRepeats "complete_repeats" "a repeated Complete is applied again" Directed,
    RestartServes "restart_serves" "a restarted primary shows its log before it settled" Random,
    RestartNoWait "restart_no_wait" "a restarted primary does not wait out the leases that it may have given" Directed,
    NoProbe "no_probe" "the primary shows a tail that is not known to be committed" Random,
    ProbeRoundIgnored "probe_round_ignored" "an answer to an earlier probe counts" Directed,
    ProbeUnsynced "probe_unsynced" "disk: a probe is answered with a tail that is not synced" Random,
    AckBeforeSync "ack_before_sync" "disk: a record is acknowledged, a tail completed, before the log's sync" Random,
    CheckpointEarly "checkpoint_early" "disk: a checkpoint writes what is not in the synced log" Random,
    TornReplayed "torn_replayed" "disk: a torn record of the log is replayed" Random,
    SyncRepeated "sync_repeated" "disk: a sync that failed is tried again, and believed" Random,
    DamageIsEnd "damage_is_end" "disk: damage in the middle of the log is taken for its end" Directed,
    LeaseNotWaited "lease_not_waited" "hand-over does not wait for the lease to lapse or come back" Random,
    StaleClock "stale_clock" "a node reads its clock before it waits for a message, not after" Random,
    NoMargin "no_margin" "the holder uses a lease as long as the granter does, whatever the clocks' rates" Directed,
    NoCallback "no_callback" "a lease is never called back" Random,
    SessionIgnored "session_ignored" "session numbers are not checked at publication" Directed,
    ReadNewest "read_newest" "a member answers a read with its newest page, not the snapshot's" Random,
    CacheNoAsOf "cache_no_as_of" "a cached page answers any snapshot, older than its version or newer than its successor" Random,
    UntilOpen "until_open" "the changed pages of an answer do not end the cached versions" Random,
    FetchedOpen "fetched_open" "a page fetched for an older snapshot is cached as the newest" Random,
    UntilNewest "until_newest" "a cached version ends at the newest change of its page, whatever was known before" Random,
    PastUnlearned "past_unlearned" "a past state newer than what the process knows is read before that is learned" Random,
    PastNotKept "past_not_kept" "a client does not say what it reads of the past" Random,
    KeepOnce "keep_once" "a client says once what it reads of the past, and not again" Directed,
    LateKeep "late_keep" "a late word about what is read of the past counts" Directed,
    FloorNotSent "floor_not_sent" "a client reports no floor" Random,
    AckEarly "ack_early" "a commit returns when all members but one hold it" Random,
    NoteEarly "note_early" "a record is noted as committed before all members acknowledged it" Random,
    LapsedBegin "lapsed_begin" "a transaction begins locally under a lapsed lease" Directed,
    BeginInFlight "begin_in_flight" "a transaction begins locally while a record of the process is in flight" Random,
    FromReceipt "from_receipt" "the holder counts its lease from the reply's receipt" Random,
    LateGrant "late_grant" "a grant that arrives after its token was given up is taken up" Random,
    ReturnedUsed "returned_used" "a lease that was given back is still used to begin" Random,
    RefusalFails "refusal_fails" "a refusal is taken for a definite failure" Random,
    FullFails "full_fails" "a member without room is taken for a definite failure, whatever the others hold" Random,
    NoReserve "no_reserve" "a settle finds no more room than commits do" Directed,
    SilenceFails "silence_fails" "silence is taken for a definite failure" Random,
    RetryAnyBase "retry_any_base" "after 'not committed' the client sends again whatever the settled tail is" Random,
    HashNoWriter "hash_no_writer" "a record's hash does not cover who wrote it" Random,
    ReadLeaseIgnored "read_lease_ignored" "a commit is acknowledged while a read lease of an older state lasts" Random,
    RecalledRead "recalled_read" "a read lease that was called back is still used to begin" Random,
    LateReadLease "late_read_lease" "a read lease that arrives after it was called back is taken up" Directed,
    JoiningPromoted "joining_promoted" "a joining member counts as complete and may be promoted" Random,
    WholeByOne "whole_by_one" "a joining member says that it is whole when one of its groups is" Random,
    JoinEarly "join_early" "a joining member is made complete before it is whole" Random,
    TailWithoutPages "tail_without_pages" "a joining member says that it is whole when it has the records, without the pages of before" Random,
    RejoinNoCut "rejoin_no_cut" "a joining member keeps what it had above what is known to be committed" Directed,
    RebaseRepeats "rebase_repeats" "a repeated Rebase is carried out again" Directed,
    WriterSkipsJoining "writer_skips_joining" "a writer does not wait for joining members" Random,
    GrantsNotWaited "grants_not_waited" "a new primary does not wait out the grant that it gave" Random,
    GrantsCompleteOnly "grants_complete_only" "grants are asked of complete members only, not of joining ones" Directed,
    ServeWithoutGrants "serve_without_grants" "a primary serves without the grants of the others" Directed,
    ServeActivating "serve_activating" "a primary serves while its generation is not active yet" Random,
    LeaseUncapped "lease_uncapped" "a lease may outlast the primary's grants" Random,
    LeaseNotCarried "lease_not_carried" "a primary that stays primary forgets the leases of the generation before" Random,
    GenerationNotDurable "generation_not_durable" "a restart forgets the generation that was adopted" Directed,
    HorizonNotKept "horizon_not_kept" "a new primary does not keep what the readers of the old one may need" Random,
    ActiveWithoutGrants "active_without_grants" "a generation becomes active before everybody has obeyed its primary once" Directed,
    SettledIsCommitted "settled_is_committed" "what is settled in a generation that is not active yet is called committed" Directed,
    NamedByNode "named_by_node" "a node that lost its memory takes itself for the member that it was" Directed,
    MinCopiesIgnored "min_copies_ignored" "writes go on with fewer copies than they may" Random,
    DriverStaleTimers "driver_stale_timers" "the registry acts on timers from before its own stop" Random,
    DriverNoCas "driver_no_cas" "the registry writes its record without comparing it" Random,
    DecidesEarly "decides_early" "a client decides before everything is prepared" Random,
    ResolvesEarly "resolves_early" "a client resolves what is prepared before the decision is held by all" Random,
    ReturnsDecided "returns_decided" "a commit over several groups returns before the participants are resolved" Random,
    WriterGoesOn "writer_goes_on" "a process writes behind a decision that is not resolved everywhere" Directed,
    PreparedShown "prepared_shown" "the primary shows a prepared tail that all hold" Random,
    PreparedCommits "prepared_commits" "a prepared record is taken for an ordinary one" Random,
    UntoldGoesOn "untold_goes_on" "a decider gives the next token before the participants have resolved" Directed,
    NoWithoutSettle "no_without_settle" "a decider says that it has not decided without a settle" Random,
    YesInMemory "yes_in_memory" "a participant notes that it is resolved as committed in memory only" Directed,
    AbortKeepsPages "abort_keeps_pages" "the pages of what was aborted are not taken back" Random,
    BareRebase "bare_rebase" "a joining member starts over from a prepared tail as if it were committed" Directed,
    AbortedCommitted "aborted_committed" "the outcome of an aborted record is told as committed" Random,
    ResolvedUnheld "resolved_unheld" "a participant says that it has resolved before its members hold the resolution" Directed,
    RemovedUnasked "removed_unasked" "a dataset is removed while what it decides, or decided, may be asked for" Directed,
    RemovedCounts "removed_counts" "who asks a dataset that was removed hears that it decided yes" Directed,
    OldStateDecides "old_state_decides" "a registry decides on an old record though nodes know a newer one" Random,
    TakesOverUnheard "takes_over_unheard" "a registry with an old record goes on from what some nodes know, without the others whom that names" Directed,
    TakesOverLow "takes_over_low" "a registry that goes on from what nodes know decides the next version and generation, not one far above" Directed,
    ViewGoesBack "view_goes_back" "a node takes a record over that contradicts the one it knows" Directed,
    ReplySession "reply_session" "replies of another session or connection are taken" Random,
}

impl Mutant {
    /// The mutant of a name.
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|m| m.name() == name)
    }
}
