//! The kernel's type information (BTF), as far as field offsets and prototypes need it.
//!
//! Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h. Native byte order only, as the running kernel
//! writes it. Every position is checked: a file that is cut short or lies about its lengths is an error, no panic.

use bytes::{Buf, Bytes};

/// Why type information could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Not BTF, or of another byte order.
    #[error("no BTF: it does not begin with the magic number 0xeb9f in this machine's byte order")]
    Magic,
    /// Lengths do not fit.
    #[error("damaged BTF: {0} lies outside the file")]
    Cut(&'static str),
    /// A kind from the future, whose size is not known.
    #[error("BTF type {id} is of unknown kind {kind}")]
    Kind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

/// Kinds used here; include/uapi/linux/btf.h, `BTF_KIND_*`.
mod kind {
    pub(super) const PTR: u32 = 2;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
}

const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type` before what depends on the kind.
const TYPE_BYTES: usize = 12;
/// A type that refers to itself through anonymous members or typedefs would never end.
const MAX_DEPTH: u32 = 16;

/// Bytes after `struct btf_type`, by kind and number of members.
const fn tail_bytes(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => 12 * members,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * members,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

/// One `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    members: usize,
    bitfields: bool,
    /// Size, or the type referred to.
    target: u32,
    /// Where its members begin in the type section.
    tail: usize,
}

/// Type information of the kernel, or of a module on top of the kernel's.
pub struct Btf<'base> {
    types: Bytes,
    strings: Bytes,
    /// Position of each type in `types`; the first has number `first_id`.
    positions: Vec<u32>,
    first_id: u32,
    first_string: u32,
    base: Option<&'base Btf<'base>>,
}

impl<'base> Btf<'base> {
    /// Type information that stands alone (`/sys/kernel/btf/vmlinux`).
    pub fn parse(file: &Bytes) -> Result<Self, BtfError> {
        Self::parse_on(file, None)
    }

    /// Type information of a module, whose numbers go on where the kernel's end.
    pub fn parse_split(file: &Bytes, base: &'base Self) -> Result<Self, BtfError> {
        Self::parse_on(file, Some(base))
    }

    fn parse_on(file: &Bytes, base: Option<&'base Btf<'base>>) -> Result<Self, BtfError> {
        let mut header = file.clone();
        let cut = |what| move |_| BtfError::Cut(what);
        if header.try_get_u16_ne().map_err(cut("the header"))? != MAGIC {
            return Err(BtfError::Magic);
        }
        let _version_and_flags = header.try_get_u16_ne().map_err(cut("the header"))?;
        let mut word = || header.try_get_u32_ne().map_err(cut("the header"));
        let (length, type_at, type_bytes, string_at, string_bytes) =
            (word()?, word()?, word()?, word()?, word()?);
        let section = |at: u32, bytes: u32, what| {
            let start = (length as usize).checked_add(at as usize).ok_or(BtfError::Cut(what))?;
            let end = start
                .checked_add(bytes as usize)
                .filter(|end| *end <= file.len())
                .ok_or(BtfError::Cut(what))?;
            Ok(file.slice(start..end))
        };
        let types = section(type_at, type_bytes, "the type section")?;
        let strings = section(string_at, string_bytes, "the string section")?;
        let (first_id, first_string) = base.map_or((1, 0), |base| (base.next_id(), base.strings_end()));
        let positions = positions(&types, first_id)?;
        Ok(Self { types, strings, positions, first_id, first_string, base })
    }

    fn next_id(&self) -> u32 {
        self.first_id.saturating_add(u32::try_from(self.positions.len()).unwrap_or(u32::MAX))
    }

    fn strings_end(&self) -> u32 {
        self.first_string.saturating_add(u32::try_from(self.strings.len()).unwrap_or(u32::MAX))
    }

    /// Byte offset of a field, `path` with dots between nested names, in the struct `structure`. Anonymous structs and
    /// unions on the way are looked into.
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        let id = self.find(structure, |found| found.kind == kind::STRUCT)?;
        let mut current = id;
        let mut bits = 0_u32;
        for name in path.split('.') {
            let (member, offset) = self.member(current, name, 0)?;
            bits = bits.checked_add(offset)?;
            current = member;
        }
        Some(bits / 8)
    }

    /// Number of parameters of a function; `None` if there is no such function.
    pub fn function_parameters(&self, name: &str) -> Option<usize> {
        let function = self.find(name, |found| found.kind == kind::FUNC)?;
        self.prototype_parameters(self.get(function)?.target)
    }

    /// Number of parameters of a type `typedef … (*name)(…)`, as tracepoints have (`btf_trace_NAME`).
    pub fn pointer_parameters(&self, name: &str) -> Option<usize> {
        let typedef = self.get(self.find(name, |found| found.kind == kind::TYPEDEF)?)?;
        let pointer = self.get(typedef.target).filter(|found| found.kind == kind::PTR)?;
        self.prototype_parameters(pointer.target)
    }

    fn prototype_parameters(&self, id: u32) -> Option<usize> {
        self.get(id).filter(|found| found.kind == kind::FUNC_PROTO).map(|prototype| prototype.members)
    }

    /// Names and values of an enum, in its order; empty if there is no such enum.
    pub fn enumerators(&self, name: &str) -> Vec<(String, i32)> {
        let is_enum = |found: &Type| found.kind == kind::ENUM;
        let own = self.find(name, is_enum).filter(|id| *id >= self.first_id).and_then(|id| self.get(id));
        let Some(found) = own else { return self.base.map_or_else(Vec::new, |base| base.enumerators(name)) };
        let enumerator = |index: usize| {
            let at = found.tail.checked_add(index.checked_mul(8)?)?;
            let name = String::from_utf8_lossy(self.name(self.word(at)?)?).into_owned();
            Some((name, self.word(at.checked_add(4)?)?.cast_signed()))
        };
        (0..found.members).map_while(enumerator).collect()
    }

    /// Number of the first type with this name that `fits`; own types before the base's.
    fn find(&self, name: &str, fits: impl Fn(&Type) -> bool + Copy) -> Option<u32> {
        let named = |id: &u32| {
            self.get(*id).is_some_and(|found| fits(&found) && self.name(found.name) == Some(name.as_bytes()))
        };
        (self.first_id..self.next_id()).find(named).or_else(|| self.base?.find(name, fits))
    }

    fn get(&self, id: u32) -> Option<Type> {
        let Some(index) = id.checked_sub(self.first_id) else { return self.base?.get(id) };
        self.type_at(*self.positions.get(index as usize)? as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        type_at(&self.types, at)
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.types, at)
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let Some(offset) = offset.checked_sub(self.first_string) else { return self.base?.name(offset) };
        self.strings.get(offset as usize..)?.split(|&byte| byte == 0).next()
    }

    /// Type and bit offset of a member.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let id = self.unqualified(id)?;
        if id < self.first_id {
            // The kernel's types never refer to a module's.
            return self.base?.member(id, name, depth);
        }
        let aggregate = self.get(id)?;
        if depth > MAX_DEPTH || !matches!(aggregate.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for index in 0..aggregate.members {
            let at = aggregate.tail.checked_add(index.checked_mul(12)?)?;
            let (member_name, r#type, offset) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            // With bitfields, the upper byte is the width.
            let offset = if aggregate.bitfields { offset & 0x00ff_ffff } else { offset };
            match self.name(member_name)? {
                found if found == name.as_bytes() => return Some((r#type, offset)),
                b"" => {
                    if let Some((inner, more)) = self.member(r#type, name, depth + 1) {
                        return Some((inner, offset.checked_add(more)?));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn unqualified(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST => id = found.target,
                _ => return Some(id),
            }
        }
        None
    }
}

fn word(section: &[u8], at: usize) -> Option<u32> {
    section.get(at..)?.try_get_u32_ne().ok()
}

fn type_at(types: &[u8], at: usize) -> Option<Type> {
    let (name, info, target) = (word(types, at)?, word(types, at + 4)?, word(types, at + 8)?);
    Some(Type {
        name,
        kind: info >> 24 & 0x1f,
        members: (info & 0xffff) as usize,
        bitfields: info >> 31 == 1,
        target,
        tail: at + TYPE_BYTES,
    })
}

/// Where each type begins; checks that all of them lie inside the section.
fn positions(types: &[u8], first_id: u32) -> Result<Vec<u32>, BtfError> {
    let mut positions = Vec::with_capacity(types.len() / 32);
    let mut at = 0;
    while at < types.len() {
        let found = type_at(types, at).ok_or(BtfError::Cut("a type"))?;
        let id = first_id.saturating_add(u32::try_from(positions.len()).unwrap_or(u32::MAX));
        let tail = tail_bytes(found.kind, found.members).ok_or(BtfError::Kind { id, kind: found.kind })?;
        positions.push(u32::try_from(at).map_err(|_| BtfError::Cut("a type"))?);
        at = found.tail + tail;
    }
    if at == types.len() { Ok(positions) } else { Err(BtfError::Cut("the last type")) }
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
