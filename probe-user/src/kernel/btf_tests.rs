//! A small hand-made BTF: what the parser must find in it, and what damage must not do.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

/// Collects names and types; numbers begin at 1.
#[derive(Default)]
struct Maker {
    types: BytesMut,
    strings: Vec<u8>,
    first_string: u32,
}

impl Maker {
    fn new(first_string: u32) -> Self {
        Self {
            strings: if first_string == 0 { vec![0] } else { Vec::new() },
            first_string,
            ..Self::default()
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.first_string + u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.bytes().chain([0]));
        at
    }

    fn add(&mut self, name: &str, kind: u32, members: &[(&str, u32, Option<u32>)], target: u32) {
        let name = self.name(name);
        self.types.put_u32_ne(name);
        self.types.put_u32_ne(kind << 24 | u32::try_from(members.len()).unwrap());
        self.types.put_u32_ne(target);
        for (member, value, third) in members {
            let member = self.name(member);
            self.types.put_u32_ne(member);
            self.types.put_u32_ne(*value);
            if let Some(third) = third {
                self.types.put_u32_ne(*third);
            }
        }
    }

    fn file(&self) -> Bytes {
        let mut file = BytesMut::new();
        file.put_u16_ne(MAGIC);
        file.put_u16_ne(1);
        let types = u32::try_from(self.types.len()).unwrap();
        for word in [24, 0, types, types, u32::try_from(self.strings.len()).unwrap()] {
            file.put_u32_ne(word);
        }
        file.put_slice(&self.types);
        file.put_slice(&self.strings);
        file.freeze()
    }
}

/// struct sock_common { struct { u32 a; u32 skc_daddr; }; possible_net_t skc_net; }, a function and an enum.
fn kernel() -> Bytes {
    let mut maker = Maker::new(0);
    maker.add("unsigned int", 16, &[], 4); // 1 (as a FLOAT: no tail)
    maker.add("", kind::STRUCT, &[("a", 1, Some(0)), ("skc_daddr", 1, Some(32))], 8); // 2
    maker.add("net_struct", kind::STRUCT, &[("net", 1, Some(0)), ("inum", 1, Some(64))], 16); // 3
    maker.add("possible_net_t", kind::TYPEDEF, &[], 3); // 4
    maker.add("", kind::CONST, &[], 4); // 5
    maker.add("sock_common", kind::STRUCT, &[("", 2, Some(64)), ("skc_net", 5, Some(384))], 64); // 6
    maker.add("", kind::FUNC_PROTO, &[("sk", 1, None), ("skb", 1, None)], 0); // 7
    maker.add("tcp_v4_send_reset", kind::FUNC, &[], 7); // 8
    maker.add("", kind::PTR, &[], 7); // 9
    maker.add("btf_trace_tcp_send_reset", kind::TYPEDEF, &[], 9); // 10
    maker.add("sk_rst_reason", kind::ENUM, &[("SK_RST_REASON_NO_SOCKET", 1, None)], 4); // 11
    maker.file()
}

#[test]
fn fields_are_found_through_anonymous_members_typedefs_and_qualifiers() {
    let btf = Btf::parse(&kernel()).unwrap();
    assert_eq!(btf.offset_of("sock_common", "skc_daddr"), Some(8 + 4));
    assert_eq!(btf.offset_of("sock_common", "skc_net.inum"), Some(48 + 8));
    assert_eq!(btf.offset_of("sock_common", "nothing"), None);
    assert_eq!(btf.offset_of("nothing", "a"), None);
    assert_eq!(btf.offset_of("possible_net_t", "inum"), None, "a typedef is no struct");
}

#[test]
fn prototypes_and_enums_are_found() {
    let btf = Btf::parse(&kernel()).unwrap();
    assert_eq!(btf.function_parameters("tcp_v4_send_reset"), Some(2));
    assert_eq!(btf.function_parameters("sock_common"), None);
    assert_eq!(btf.pointer_parameters("btf_trace_tcp_send_reset"), Some(2));
    assert_eq!(btf.enumerators("sk_rst_reason"), [("SK_RST_REASON_NO_SOCKET".to_owned(), 1)]);
}

#[test]
fn a_module_goes_on_where_the_kernel_ends() {
    let base = Btf::parse(&kernel()).unwrap();
    let mut maker = Maker::new(base.strings_end());
    maker.add("ip_vs_conn_param", kind::STRUCT, &[("cport", 1, Some(192)), ("sk", 6, Some(256))], 64); // 12
    let module = Btf::parse_split(&maker.file(), &base).unwrap();
    assert_eq!(module.offset_of("ip_vs_conn_param", "cport"), Some(24));
    assert_eq!(module.offset_of("ip_vs_conn_param", "sk.skc_daddr"), Some(32 + 12), "a type of the kernel's");
    assert_eq!(module.offset_of("sock_common", "skc_daddr"), Some(12));
    assert_eq!(module.enumerators("sk_rst_reason").len(), 1);
}

#[test]
fn what_is_no_btf_or_from_the_future_is_refused_by_name() {
    assert_eq!(Btf::parse(&Bytes::from_static(&[0; 64])).err(), Some(BtfError::Magic));
    assert_eq!(Btf::parse(&Bytes::new()).err(), Some(BtfError::Cut("the header")));
    let mut maker = Maker::new(0);
    maker.add("new", 25, &[], 0);
    assert_eq!(Btf::parse(&maker.file()).err(), Some(BtfError::Kind { id: 1, kind: 25 }));
}

#[test]
fn a_type_that_contains_itself_ends() {
    let mut maker = Maker::new(0);
    maker.add("loop", kind::STRUCT, &[("", 1, Some(0))], 8);
    maker.add("t", kind::TYPEDEF, &[], 2);
    let btf = Btf::parse(&maker.file()).unwrap();
    assert_eq!(btf.offset_of("loop", "x"), None);
    assert_eq!(btf.unqualified(2), None);
}

proptest! {
    #[test]
    fn damage_is_an_error_or_a_different_answer_never_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>(),
    ) {
        let mut file = kernel().to_vec();
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        file.truncate(length.index(file.len()) + 1);
        if let Ok(btf) = Btf::parse(&file.into()) {
            btf.offset_of("sock_common", "skc_net.inum");
            btf.function_parameters("tcp_v4_send_reset");
            btf.enumerators("sk_rst_reason");
        }
    }
}
