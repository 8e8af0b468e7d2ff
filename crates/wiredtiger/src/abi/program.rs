//! What the program that loads this library has: the version of its WiredTiger, and how many methods its connections
//! have. Nothing is called on a connection before both are known to fit together.

use super::layout::Version;
use super::structs::Connection;
use std::ffi::{CStr, c_char, c_int, c_void};

/// A `WT_CONNECTION` and the code behind it.
#[derive(Debug)]
pub struct Program {
    /// None: the program does not export `wiredtiger_version`.
    pub version: Option<Version>,
    pub methods: usize,
}

/// More than any version has, and far less than what lies behind every connection's table (kilobytes of private data).
const METHODS_MAX: usize = 64;

impl Program {
    /// # Safety
    /// `connection` is the one that WiredTiger passes to an extension's entry.
    pub unsafe fn of(connection: *const Connection) -> Program {
        // SAFETY: a WT_CONNECTION is the head of a larger structure that is at least that long and initialised.
        let slots = unsafe { std::slice::from_raw_parts(connection, METHODS_MAX) };
        let code = code_around(slots[0] as usize);
        let methods = slots.iter().take_while(|p| code.contains(&(**p as usize))).count();
        Program { version: version_of(slots[0]), methods }
    }
}

/// The range of executable memory, of one program or library, that an address lies in; empty if none does.
fn code_around(address: usize) -> std::ops::Range<usize> {
    struct Search {
        address: usize,
        found: std::ops::Range<usize>,
    }
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid info with that many headers, and our own search through.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: as above.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for h in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0) {
            let start = info.dlpi_addr.wrapping_add(h.p_vaddr) as usize;
            let range = start..start.saturating_add(h.p_memsz as usize);
            if range.contains(&search.address) {
                search.found = range;
                return 1;
            }
        }
        0
    }
    let mut search = Search { address, found: 0..0 };
    // SAFETY: `look` is called before this returns, and `search` lives as long.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

/// The version that the library around `method` exports. Another WiredTiger of the same process is not asked.
fn version_of(method: *const c_void) -> Option<Version> {
    let home = object_of(method)?;
    // SAFETY: the loader's string; NOLOAD loads nothing, and adds a reference that is given back below.
    let library = unsafe { libc::dlopen(home.dli_fname, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    let found = [library, libc::RTLD_DEFAULT].into_iter().find_map(|place| {
        // SAFETY: a valid handle; null, which is RTLD_DEFAULT too, searches the whole program.
        let symbol = unsafe { libc::dlsym(place, c"wiredtiger_version".as_ptr()) };
        object_of(symbol).filter(|o| o.dli_fbase == home.dli_fbase).map(|_| symbol)
    });
    let version = found.map(|symbol| {
        type WiredTigerVersion = unsafe extern "C" fn(*mut c_int, *mut c_int, *mut c_int) -> *const c_char;
        // SAFETY: WiredTiger's public function of that name, unchanged in all of its versions.
        let ask = unsafe { std::mem::transmute::<*mut c_void, WiredTigerVersion>(symbol) };
        let mut version = Version(0, 0, 0);
        // SAFETY: as above; it stores three numbers.
        unsafe { ask(&mut version.0, &mut version.1, &mut version.2) };
        version
    });
    if !library.is_null() {
        // SAFETY: opened above.
        unsafe { libc::dlclose(library) };
    }
    version
}

/// Where an address lies.
fn object_of(address: *const c_void) -> Option<libc::Dl_info> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked for; the answer fits.
    let found = !address.is_null() && unsafe { libc::dladdr(address, info.as_mut_ptr()) } != 0;
    // SAFETY: zeroed, or filled in.
    found.then(|| unsafe { info.assume_init() }).filter(|i| !i.dli_fname.is_null())
}

/// A string of C, if it is UTF-8.
///
/// # Safety
/// `p` is null or a string that ends with a zero byte and outlives the answer.
pub unsafe fn text<'a>(p: *const c_char) -> Option<&'a str> {
    // SAFETY: the caller's promise.
    if p.is_null() { None } else { unsafe { CStr::from_ptr(p) }.to_str().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn method() {}

    #[test]
    fn methods_are_counted_up_to_the_first_word_that_is_no_code() {
        let heap = Box::new(7u64);
        for (methods, next) in
            [(20, std::ptr::null()), (21, (&raw const *heap).cast()), (22, libc::getpid as *const c_void)]
        {
            let mut slots = [next; METHODS_MAX];
            slots[..methods].fill(method as *const c_void);
            // SAFETY: as long as it has to be.
            let program = unsafe { Program::of(slots.as_ptr()) };
            assert_eq!((program.methods, program.version), (methods, None));
        }
    }

    #[test]
    fn a_table_without_code_has_no_methods() {
        let slots = [std::ptr::null(); METHODS_MAX];
        // SAFETY: as long as it has to be.
        assert_eq!(unsafe { Program::of(slots.as_ptr()) }.methods, 0);
    }
}
