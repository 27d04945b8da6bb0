//! The hook ladder: for each need the ways to meet it, best first. A new hook is one line in [`LADDER`].

use std::fmt;

use clap::ValueEnum;

use super::layout::Layout;

/// What tracing needs from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A connect with its final tuple, owner, initial sequence number and namespace.
    Connect,
    /// How connect() itself ended.
    ConnectEnd,
    /// A reset sent by a stack of this node.
    Reset,
    /// How the flagged connection went on.
    Outcome,
    /// IPVS schedules a reply.
    Hijack,
    /// IPVS has no backend.
    NoBackend,
    /// The service table changes.
    TableChange,
    /// ip_vs is loaded or unloaded.
    ModuleChange,
    /// Packets of flagged connections, where they are asked for.
    Packets,
}

impl Need {
    /// Name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectEnd => "connect_end",
            Self::Reset => "reset",
            Self::Outcome => "outcome",
            Self::Hijack => "hijack",
            Self::NoBackend => "no_backend",
            Self::TableChange => "table_change",
            Self::ModuleChange => "module_change",
            Self::Packets => "packets",
        }
    }

    /// What is lost when the need is not met.
    pub const fn without(self) -> &'static str {
        match self {
            Self::Connect => "no connection can be seen at all",
            Self::ConnectEnd => "used-up source ports (EADDRNOTAVAIL) are not reported",
            Self::Reset => "resets are not seen, so a collision can only be told from its timeout",
            Self::Outcome => "how a connection ends is not seen, so verdicts stay pending",
            Self::Hijack => "the hijack itself is only seen afterwards, in the IPVS connection table",
            Self::NoBackend => "a service without backends looks like a plain timeout",
            Self::TableChange => "a changed service table is noticed by polling only",
            Self::ModuleChange => "a later loaded ip_vs module is noticed by polling only",
            Self::Packets => "packets are not recorded",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kind of hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rung {
    /// BTF trampolines.
    Fentry,
    /// kprobes and kretprobes.
    Kprobe,
    /// Hooks with a stable interface only: tracepoints and cgroup hooks.
    Stable,
}

/// Which rungs may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Hooks {
    /// The best that this kernel allows.
    #[default]
    Auto,
    /// fentry/fexit where a need has that way.
    Fentry,
    /// kprobes where a need has that way.
    Kprobe,
    /// Tracepoints and cgroup hooks only.
    Stable,
}

/// How one program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Attach {
    /// Entry of a kernel function, by BTF.
    Fentry(&'static str),
    /// Return of a kernel function, by BTF.
    Fexit(&'static str),
    /// Entry or return (the program says which) of every one of these functions that exists; at least one must.
    Kprobe(&'static [&'static str]),
    /// A raw tracepoint.
    RawTracepoint(&'static str),
    /// A tracepoint by category and name.
    Tracepoint(&'static str, &'static str),
    /// sockops on the cgroup2 root.
    SockOps,
}

/// One way to meet a need: every step must succeed.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Its rung.
    pub rung: Rung,
    /// Name in output.
    pub name: &'static str,
    /// Programs and where they go.
    pub steps: &'static [(&'static str, Attach)],
    /// What this way cannot see, if it sees less than the best.
    pub limit: Option<&'static str>,
    /// Condition beyond "it attaches".
    pub condition: Condition,
}

/// Condition of a [`Way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// None.
    Always,
    /// tcp:tcp_send_reset fires without a socket.
    ResetWithoutSocket,
    /// It is known where a system call's arguments are kept.
    KeptArguments,
}

impl Condition {
    /// `Err` says why not.
    pub fn check(self, layout: &Layout) -> Result<(), &'static str> {
        match self {
            Self::ResetWithoutSocket if !layout.reset_tracepoint_without_socket() => {
                Err("tcp:tcp_send_reset is silent without a socket before kernel 6.10")
            }
            Self::KeptArguments if !layout.keeps_arguments() => {
                Err("this kernel's type information does not say in which register an argument is")
            }
            Self::Always | Self::ResetWithoutSocket | Self::KeptArguments => Ok(()),
        }
    }
}

const fn way(rung: Rung, name: &'static str, steps: &'static [(&'static str, Attach)]) -> Way {
    Way { rung, name, steps, limit: None, condition: Condition::Always }
}

/// The way that looks hijacks up in `/proc/net/ip_vs_conn`: user space alone, no hook.
pub const CONNECTION_TABLE: &str = "ip_vs_conn";

const NO_IO_URING: &str = "connects through io_uring are not seen";

/// Every need and its ways, best first.
pub const LADDER: &[(Need, &[Way])] = &[
    (
        Need::Outcome,
        &[way(
            Rung::Stable,
            "tracepoint",
            &[
                ("outcome_state", Attach::RawTracepoint("inet_sock_set_state")),
                ("outcome_retransmit", Attach::RawTracepoint("tcp_retransmit_skb")),
            ],
        )],
    ),
    (
        Need::Reset,
        &[
            Way {
                condition: Condition::ResetWithoutSocket,
                ..way(
                    Rung::Stable,
                    "tracepoint",
                    &[("reset_tracepoint", Attach::RawTracepoint("tcp_send_reset"))],
                )
            },
            way(
                Rung::Fentry,
                "fentry",
                &[
                    ("reset_v4_fentry", Attach::Fentry("tcp_v4_send_reset")),
                    ("reset_v6_fentry", Attach::Fentry("tcp_v6_send_reset")),
                ],
            ),
            way(
                Rung::Kprobe,
                "kprobe",
                &[("reset_kprobe", Attach::Kprobe(&["tcp_v4_send_reset", "tcp_v6_send_reset"]))],
            ),
            Way {
                limit: Some(
                    "resets by a closed port are not seen (tcp:tcp_send_reset needs kernel 6.10 for that)",
                ),
                ..way(
                    Rung::Stable,
                    "tracepoint",
                    &[("reset_tracepoint", Attach::RawTracepoint("tcp_send_reset"))],
                )
            },
        ],
    ),
    (
        Need::ConnectEnd,
        &[
            way(
                Rung::Fentry,
                "fexit",
                &[
                    ("connect_end_v4_fexit", Attach::Fexit("tcp_v4_connect")),
                    ("connect_end_v6_fexit", Attach::Fexit("tcp_v6_connect")),
                ],
            ),
            way(
                Rung::Kprobe,
                "kretprobe",
                &[
                    ("connect_enter_kprobe", Attach::Kprobe(&["tcp_v4_connect", "tcp_v6_connect"])),
                    ("connect_end_kretprobe", Attach::Kprobe(&["tcp_v4_connect", "tcp_v6_connect"])),
                ],
            ),
            Way {
                limit: Some(NO_IO_URING),
                condition: Condition::KeptArguments,
                ..way(
                    Rung::Stable,
                    "tracepoint",
                    &[("connect_end_registers", Attach::Tracepoint("syscalls", "sys_exit_connect"))],
                )
            },
            Way {
                limit: Some(NO_IO_URING),
                ..way(
                    Rung::Stable,
                    "tracepoint",
                    &[
                        ("connect_enter_tracepoint", Attach::Tracepoint("syscalls", "sys_enter_connect")),
                        ("connect_end_tracepoint", Attach::Tracepoint("syscalls", "sys_exit_connect")),
                    ],
                )
            },
        ],
    ),
    (
        Need::Hijack,
        &[
            way(
                Rung::Kprobe,
                "kprobe",
                &[
                    ("hijack_schedule", Attach::Kprobe(&["ip_vs_schedule"])),
                    ("hijack_conn_new", Attach::Kprobe(&["ip_vs_conn_new"])),
                ],
            ),
            Way {
                limit: Some("the hijack is only seen afterwards, in the IPVS connection table"),
                ..way(Rung::Stable, CONNECTION_TABLE, &[])
            },
        ],
    ),
    (
        Need::NoBackend,
        &[way(Rung::Kprobe, "kprobe", &[("no_backend_leave", Attach::Kprobe(&["ip_vs_leave"]))])],
    ),
    (
        Need::TableChange,
        &[way(
            Rung::Kprobe,
            "kretprobe",
            &[("table_changed", Attach::Kprobe(&["ip_vs_genl_set_cmd", "do_ip_vs_set_ctl"]))],
        )],
    ),
    (
        Need::ModuleChange,
        &[way(
            Rung::Stable,
            "tracepoint",
            &[
                ("module_loaded", Attach::RawTracepoint("module_load")),
                ("module_freed", Attach::RawTracepoint("module_free")),
            ],
        )],
    ),
    // Last, so that everything that can follow a connect is already watched.
    (
        Need::Connect,
        &[
            way(Rung::Fentry, "fentry", &[("connect_fentry", Attach::Fentry("tcp_connect"))]),
            way(Rung::Kprobe, "kprobe", &[("connect_kprobe", Attach::Kprobe(&["tcp_connect"]))]),
            // From 6.10 on sockops may ask who runs.
            way(Rung::Stable, "sockops", &[("connect_sockops_owner", Attach::SockOps)]),
            way(
                Rung::Stable,
                "sockops",
                &[
                    ("connect_caller", Attach::RawTracepoint("inet_sock_set_state")),
                    ("connect_sockops", Attach::SockOps),
                ],
            ),
        ],
    ),
];

/// What recording packets needs besides [`LADDER`], and its ways, best first: programs that run once per packet, so they
/// are attached only where packets are asked for.
pub const PACKETS: &[(Need, &[Way])] = &[(
    Need::Packets,
    &[way(
        Rung::Stable,
        "tracepoint",
        &[
            ("packet_sent", Attach::RawTracepoint("net_dev_start_xmit")),
            ("packet_received", Attach::RawTracepoint("netif_receive_skb")),
        ],
    )],
)];

/// What `portclash ports` needs, and its ways, best first: connects are counted in the kernel, nothing is sent.
pub const COUNTING: &[(Need, &[Way])] = &[
    (
        Need::ConnectEnd,
        &[
            way(
                Rung::Fentry,
                "fexit",
                &[
                    ("ports_end_v4_fexit", Attach::Fexit("tcp_v4_connect")),
                    ("ports_end_v6_fexit", Attach::Fexit("tcp_v6_connect")),
                ],
            ),
            way(
                Rung::Kprobe,
                "kretprobe",
                &[
                    ("connect_enter_kprobe", Attach::Kprobe(&["tcp_v4_connect", "tcp_v6_connect"])),
                    ("ports_end_kretprobe", Attach::Kprobe(&["tcp_v4_connect", "tcp_v6_connect"])),
                ],
            ),
            // What it does not see, a connect from a port that bind() chose, uses up no port.
            way(
                Rung::Stable,
                "tracepoint",
                &[("ports_end_state", Attach::RawTracepoint("inet_sock_set_state"))],
            ),
        ],
    ),
    (
        Need::Connect,
        &[
            way(Rung::Fentry, "fentry", &[("ports_fentry", Attach::Fentry("tcp_connect"))]),
            way(Rung::Kprobe, "kprobe", &[("ports_kprobe", Attach::Kprobe(&["tcp_connect"]))]),
            way(Rung::Stable, "tracepoint", &[("ports_state", Attach::RawTracepoint("inet_sock_set_state"))]),
        ],
    ),
];

/// True for the needs that IPVS itself must be there for.
pub const fn needs_ipvs(need: Need) -> bool {
    matches!(need, Need::Hijack | Need::NoBackend | Need::TableChange)
}

/// The ways of a need that `hooks` allows, best first. A forced rung leaves other ways only to needs that do not have
/// it; `stable` never falls back.
pub fn allowed(ways: &'static [Way], hooks: Hooks) -> Vec<&'static Way> {
    let wanted = match hooks {
        Hooks::Auto => return ways.iter().collect(),
        Hooks::Fentry => Rung::Fentry,
        Hooks::Kprobe => Rung::Kprobe,
        Hooks::Stable => Rung::Stable,
    };
    let matching: Vec<_> = ways.iter().filter(|way| way.rung == wanted).collect();
    if matching.is_empty() && hooks != Hooks::Stable { ways.iter().collect() } else { matching }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(need: Need) -> &'static [Way] {
        LADDER.iter().chain(PACKETS).find(|(other, _)| *other == need).unwrap().1
    }

    #[test]
    fn a_forced_rung_is_the_only_one_where_the_need_has_it() {
        let rungs = |need, hooks| allowed(ways(need), hooks).iter().map(|way| way.rung).collect::<Vec<_>>();
        assert_eq!(rungs(Need::Connect, Hooks::Kprobe), [Rung::Kprobe]);
        assert_eq!(rungs(Need::Reset, Hooks::Fentry), [Rung::Fentry]);
        assert_eq!(rungs(Need::NoBackend, Hooks::Fentry), [Rung::Kprobe], "ip_vs functions have no fentry");
        assert_eq!(rungs(Need::NoBackend, Hooks::Stable), []);
        for hooks in [Hooks::Auto, Hooks::Fentry, Hooks::Kprobe, Hooks::Stable] {
            assert_eq!(rungs(Need::Packets, hooks), [Rung::Stable], "{hooks:?}");
        }
    }

    #[test]
    fn every_need_has_a_way_and_connect_is_attached_last() {
        for ladder in [LADDER, COUNTING] {
            assert!(ladder.iter().all(|(_, ways)| !ways.is_empty()));
            assert_eq!(ladder.last().unwrap().0, Need::Connect);
        }
    }
}
