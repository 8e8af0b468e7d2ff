//! A small binding of a SQLite that is loaded at run time, with the VFS registered in it over one [`MemoryStore`].
#![allow(dead_code)]

use dspm_sqlite::memory::{Group, MemoryStore};
use dspm_sqlite::{Opener, Registered, extension_init, register};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::mem::transmute_copy;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

macro_rules! functions {
    ($($name:ident($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// The functions of one loaded copy.
        #[allow(non_snake_case)]
        pub struct Functions { $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)* }

        impl Functions {
            unsafe fn load(library: *mut c_void) -> Functions {
                Functions { $($name: unsafe {
                    let name = CString::new(concat!("sqlite3_", stringify!($name))).unwrap();
                    let symbol = libc::dlsym(library, name.as_ptr());
                    assert!(!symbol.is_null(), "no {name:?}");
                    transmute_copy(&symbol)
                },)* }
            }
        }
    };
}

functions! {
    auto_extension(*const c_void) -> c_int;
    backup_finish(*mut c_void) -> c_int;
    backup_init(*mut c_void, *const c_char, *mut c_void, *const c_char) -> *mut c_void;
    backup_step(*mut c_void, c_int) -> c_int;
    blob_close(*mut c_void) -> c_int;
    blob_open(*mut c_void, *const c_char, *const c_char, *const c_char, i64, c_int, *mut *mut c_void) -> c_int;
    blob_write(*mut c_void, *const c_void, c_int, c_int) -> c_int;
    busy_timeout(*mut c_void, c_int) -> c_int;
    cancel_auto_extension(*const c_void) -> c_int;
    close(*mut c_void) -> c_int;
    column_count(*mut c_void) -> c_int;
    column_text(*mut c_void, c_int) -> *const c_char;
    errmsg(*mut c_void) -> *const c_char;
    extended_errcode(*mut c_void) -> c_int;
    file_control(*mut c_void, *const c_char, c_int, *mut c_void) -> c_int;
    finalize(*mut c_void) -> c_int;
    get_autocommit(*mut c_void) -> c_int;
    libversion_number() -> c_int;
    open_v2(*const c_char, *mut *mut c_void, c_int, *const c_char) -> c_int;
    prepare_v2(*mut c_void, *const c_char, c_int, *mut *mut c_void, *mut *const c_char) -> c_int;
    reset(*mut c_void) -> c_int;
    step(*mut c_void) -> c_int;
    vfs_find(*const c_char) -> *mut c_void;
}

/// The store behind the VFS of all copies.
pub fn store() -> Arc<MemoryStore> {
    static STORE: OnceLock<Arc<MemoryStore>> = OnceLock::new();
    STORE.get_or_init(Default::default).clone()
}

/// Test dataset's shared state.
pub fn group(name: &str) -> Arc<Group> {
    store().group(name)
}

static REGISTERED: Mutex<Vec<Registered>> = Mutex::new(Vec::new());

unsafe extern "C" fn entry(_: *mut c_void, message: *mut *mut c_char, api: *const c_void) -> c_int {
    unsafe {
        REGISTERED.lock().unwrap().push(register(api, store()).unwrap());
        let done = extension_init(message, api, || Ok(store() as Arc<dyn Opener>));
        assert_eq!(done, 256, "an extension stays loaded");
    }
    0
}

/// Loads a SQLite and registers the VFS in it.
pub fn load(path: &CStr) -> Functions {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!library.is_null(), "{path:?}: {:?}", CStr::from_ptr(libc::dlerror()));
        let sqlite = Functions::load(library);
        let entry = entry as *const c_void;
        assert_eq!((sqlite.auto_extension)(entry), 0);
        let mut db = std::ptr::null_mut();
        assert_eq!((sqlite.open_v2)(c":memory:".as_ptr(), &mut db, 6, std::ptr::null()), 0);
        (sqlite.close)(db);
        assert_eq!((sqlite.cancel_auto_extension)(entry), 1);
        sqlite
    }
}

/// What each load answered: new, then present.
pub fn registered() -> Vec<Registered> {
    REGISTERED.lock().unwrap().clone()
}

/// The file that the tests' SQLite is loaded from.
pub fn library() -> CString {
    CString::new(std::env::var("DSPM_TEST_SQLITE").unwrap_or_else(|_| "libsqlite3.so.0".into())).unwrap()
}

/// The tests' SQLite.
pub fn sqlite() -> &'static Functions {
    static SQLITE: OnceLock<Functions> = OnceLock::new();
    SQLITE.get_or_init(|| load(&library()))
}

/// A failed call: extended code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub code: c_int,
    pub text: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code, self.text)
    }
}

/// A connection.
pub struct Db {
    pub sqlite: &'static Functions,
    pub raw: *mut c_void,
}

unsafe impl Send for Db {}

pub const READ_WRITE: c_int = 2;
pub const CREATE: c_int = 6;
pub const READ_ONLY: c_int = 1;
const URI: c_int = 0x40;

impl Db {
    /// Opens with the tests' SQLite; `vfs` is "dspm" or "unix".
    pub fn try_open(name: &str, flags: c_int, vfs: &str) -> Result<Db, Failed> {
        Db::try_open_in(sqlite(), name, flags, vfs)
    }

    pub fn try_open_in(sqlite: &'static Functions, name: &str, flags: c_int, vfs: &str) -> Result<Db, Failed> {
        let (name, vfs) = (CString::new(name).unwrap(), CString::new(vfs).unwrap());
        let mut raw = std::ptr::null_mut();
        let code = unsafe { (sqlite.open_v2)(name.as_ptr(), &mut raw, flags | URI, vfs.as_ptr()) };
        let db = Db { sqlite, raw };
        if code == 0 { Ok(db) } else { Err(db.failed()) }
    }

    /// Opens a dataset.
    pub fn dspm(name: &str) -> Db {
        Db::try_open(name, CREATE, "dspm").unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Opens a dataset as another process of the same machine would.
    pub fn process(name: &str, process: u64) -> Db {
        Db::dspm(&format!("file:{name}?process={process}"))
    }

    /// Opens a file of the file system.
    pub fn unix(path: &Path) -> Db {
        Db::try_open(path.to_str().unwrap(), CREATE, "unix").unwrap()
    }

    pub fn failed(&self) -> Failed {
        unsafe {
            let text = CStr::from_ptr((self.sqlite.errmsg)(self.raw)).to_string_lossy().into_owned();
            Failed { code: (self.sqlite.extended_errcode)(self.raw), text }
        }
    }

    /// Runs statements; the rows of all of them.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, Failed> {
        let sql = CString::new(sql).unwrap();
        let (mut rest, mut rows) = (sql.as_ptr(), Vec::new());
        unsafe {
            while *rest != 0 {
                let mut statement = std::ptr::null_mut();
                if (self.sqlite.prepare_v2)(self.raw, rest, -1, &mut statement, &mut rest) != 0 {
                    return Err(self.failed());
                }
                if statement.is_null() {
                    continue;
                }
                while (self.sqlite.step)(statement) == 100 {
                    rows.push(self.row(statement));
                }
                if (self.sqlite.finalize)(statement) != 0 {
                    return Err(self.failed());
                }
            }
        }
        Ok(rows)
    }

    unsafe fn row(&self, statement: *mut c_void) -> Vec<String> {
        unsafe {
            (0..(self.sqlite.column_count)(statement))
                .map(|n| {
                    let text = (self.sqlite.column_text)(statement, n);
                    if text.is_null() { "NULL".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
                })
                .collect()
        }
    }

    /// Runs statements that must succeed.
    pub fn exec(&self, sql: &str) {
        if let Err(e) = self.rows(sql) {
            panic!("{sql}: {e}");
        }
    }

    /// The first cell of statements that must succeed.
    pub fn cell(&self, sql: &str) -> String {
        match self.rows(sql) {
            Ok(rows) => rows.first().and_then(|row| row.first()).unwrap_or_else(|| panic!("{sql}: no row")).clone(),
            Err(e) => panic!("{sql}: {e}"),
        }
    }

    /// The code that statements fail with.
    pub fn code(&self, sql: &str) -> c_int {
        match self.rows(sql) {
            Ok(rows) => panic!("{sql}: no failure, {rows:?}"),
            Err(e) => e.code,
        }
    }

    pub fn busy_timeout(&self, ms: c_int) {
        unsafe { (self.sqlite.busy_timeout)(self.raw, ms) };
    }

    pub fn in_transaction(&self) -> bool {
        unsafe { (self.sqlite.get_autocommit)(self.raw) == 0 }
    }

    /// A statement that has given its first row and stays open.
    pub fn cursor(&self, sql: &str) -> Cursor<'_> {
        let sql = CString::new(sql).unwrap();
        let mut statement = std::ptr::null_mut();
        unsafe {
            let ok = (self.sqlite.prepare_v2)(self.raw, sql.as_ptr(), -1, &mut statement, std::ptr::null_mut());
            assert_eq!(ok, 0, "{}", self.failed());
            assert_eq!((self.sqlite.step)(statement), 100, "{}", self.failed());
        }
        Cursor { db: self, statement }
    }

    /// Everything that a reader can see, and that it is sound.
    pub fn dump(&self) -> Vec<Vec<String>> {
        let mut all = self.rows("PRAGMA integrity_check; PRAGMA user_version; PRAGMA application_id").unwrap();
        assert_eq!(all[0], ["ok"]);
        let tables = self.rows("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2").unwrap();
        for table in tables.iter().filter(|t| t[1].starts_with("CREATE TABLE")) {
            let columns = self.rows(&format!("SELECT name FROM pragma_table_info('{}')", table[0])).unwrap();
            let columns: Vec<_> = columns.iter().map(|c| format!("quote(\"{}\")", c[0])).collect();
            let order: Vec<_> = (1..=columns.len()).map(|n| n.to_string()).collect();
            let (columns, order) = (columns.join(","), order.join(","));
            all.extend(self.rows(&format!("SELECT {columns} FROM \"{}\" ORDER BY {order}", table[0])).unwrap());
        }
        all.extend(tables);
        all
    }

    /// `sqlite3_backup` of the whole main database.
    pub fn backup_to(&self, to: &Db) -> Result<(), Failed> {
        unsafe {
            let backup = (self.sqlite.backup_init)(to.raw, c"main".as_ptr(), self.raw, c"main".as_ptr());
            if backup.is_null() {
                return Err(to.failed());
            }
            while (self.sqlite.backup_step)(backup, 3) == 0 {}
            if (self.sqlite.backup_finish)(backup) == 0 { Ok(()) } else { Err(to.failed()) }
        }
    }

    /// Writes into a blob in place.
    pub fn write_blob(&self, table: &str, column: &str, row: i64, at: c_int, data: &[u8]) -> c_int {
        let (table, column) = (CString::new(table).unwrap(), CString::new(column).unwrap());
        unsafe {
            let mut blob = std::ptr::null_mut();
            let main = c"main".as_ptr();
            let code = (self.sqlite.blob_open)(self.raw, main, table.as_ptr(), column.as_ptr(), row, 1, &mut blob);
            if code != 0 {
                return code;
            }
            let written = (self.sqlite.blob_write)(blob, data.as_ptr().cast(), data.len() as c_int, at);
            let closed = (self.sqlite.blob_close)(blob);
            if written != 0 { written } else { closed }
        }
    }

    /// Closes; a connection that is busy fails the test.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let code = unsafe { (self.sqlite.close)(self.raw) };
        if !std::thread::panicking() {
            assert_eq!(code, 0, "closed with something open");
        }
    }
}

/// An open statement.
pub struct Cursor<'a> {
    db: &'a Db,
    statement: *mut c_void,
}

impl Cursor<'_> {
    /// Steps on: 100 is a row, 101 the end, anything else a failure.
    pub fn step(&mut self) -> c_int {
        unsafe { (self.db.sqlite.step)(self.statement) }
    }

    /// Back before the first row: a read transaction ends.
    pub fn reset(&mut self) {
        assert_eq!(unsafe { (self.db.sqlite.reset)(self.statement) }, 0);
    }

    pub fn text(&self) -> String {
        unsafe { self.db.row(self.statement) }.remove(0)
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        unsafe { (self.db.sqlite.finalize)(self.statement) };
    }
}

/// Nothing is left of any connection: no snapshot, no reservation.
pub fn assert_idle(name: &str) {
    assert_eq!(group(name).pins(), 0, "{name}: a snapshot was not released");
    assert!(!group(name).is_reserved(), "{name}: a reservation was not released");
}

/// A directory of its own for files of the file system, removed at the end; in memory where that is possible.
pub struct Directory(std::path::PathBuf);

impl Directory {
    pub fn new(name: &str) -> Directory {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.into() } else { std::env::temp_dir() };
        let path = parent.join(format!("dspm-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
