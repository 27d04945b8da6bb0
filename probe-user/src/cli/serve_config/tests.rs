//! Files and variables as people write them.

use std::path::Path;

use super::*;

/// A run with these arguments, variables and system file.
fn sources(
    arguments: &[&str],
    variables: &[(&str, &str)],
    file: Option<&str>,
) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let system_file = folder.path().join("serve.toml");
    if let Some(text) = file {
        std::fs::write(&system_file, text).unwrap();
    }
    let sources = Sources {
        arguments: ["portclash", "serve"].iter().chain(arguments).map(OsString::from).collect(),
        variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        system_file,
    };
    (folder, sources)
}

fn configure(sources: &Sources) -> Result<Configured, ConfigError> {
    sources.configure(&sources.command_line().expect("a right command line"))
}

fn configured(arguments: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Configured {
    let (_folder, sources) = sources(arguments, variables, file);
    configure(&sources).unwrap()
}

/// The error, with the folder's name taken out.
fn refused(arguments: &[&str], variables: &[(&str, &str)], file: &str) -> String {
    let (folder, sources) = sources(arguments, variables, Some(file));
    let error = configure(&sources).unwrap_err().to_string();
    error.replace(folder.path().to_str().unwrap(), "/etc/portclash")
}

#[test]
fn a_flag_comes_before_its_variable_and_that_before_the_file() {
    let file = "repeat-every = \"1m\"\ndrain = \"1s\"\nrecord_files = 7\n";
    let variables = [("PORTCLASH_REPEAT_EVERY", "2m"), ("PORTCLASH_DRAIN", "2s"), ("PATH", "/bin")];
    let args = configured(&["--drain", "3s"], &variables, Some(file)).args;
    assert_eq!(args.drain.as_secs(), 3);
    assert_eq!(args.deliver.repeat_every.as_secs(), 120);
    assert_eq!(args.record.record_files, 7);
    assert_eq!(args.record.record_size, 100 << 20, "the default");
}

#[test]
fn every_kind_of_value_is_read() {
    let file = "
# A comment.
listen = \"none\"
label-pods = true
keep-privileges = false
kubernetes-events = true
kubelet-insecure = false
kubelet-name = [\"node-a\", \"node-a.example.net\"]
record-size = 1_000_000
netns = 0x10
check-every = false
";
    let args = configured(&[], &[], Some(file)).args;
    assert_eq!(args.check_every.0, None);
    assert_eq!(args.http.listen, crate::cli::serve::Listen::Nowhere);
    assert_eq!((args.http.label_pods, args.record.record_size), (100, 1_000_000));
    assert!(args.deliver.kubernetes_events && !args.privileges.keep_privileges);
    assert_eq!(args.netns, crate::node::netns::NetnsSpec::Pid(16));
    let args = configured(&["--label-pods"], &[("PORTCLASH_LABEL_PODS", "7")], None).args;
    assert_eq!(args.http.label_pods, 100);
    let args = configured(&["--keep-privileges=false"], &[("PORTCLASH_KEEP_PRIVILEGES", "true")], None).args;
    assert!(!args.privileges.keep_privileges);
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_one() {
    assert_eq!(
        refused(&[], &[], "\n\n\n\n\n\nrecrod = \"/x\"\n"),
        "/etc/portclash/serve.toml:7: unknown key \"recrod\": did you mean \"record\"?"
    );
    assert_eq!(refused(&[], &[], "xyzzy = 1"), "/etc/portclash/serve.toml:1: unknown key \"xyzzy\"");
    for own in ["config", "print-config", "output", "help"] {
        assert!(refused(&[], &[], &format!("{own} = \"x\"")).contains("unknown key"), "{own}");
    }
    assert!(refused(&[], &[], "[serve]\nrecord = \"/x\"").contains("serve.toml:1: unknown key \"serve\""));
    assert_eq!(
        refused(&[], &[("PORTCLASH_RECROD_SIZE", "1G")], ""),
        "environment: unknown variable \"PORTCLASH_RECROD_SIZE\": did you mean \"PORTCLASH_RECORD_SIZE\"?"
    );
}

#[test]
fn a_wrong_value_is_named_with_its_line_or_variable() {
    let cases = [
        (
            "\nlisten = \"here\"",
            "serve.toml:2: invalid value 'here' for '--listen <ADDR:PORT|none>': write it like",
        ),
        ("poll = \"5x\"", "serve.toml:1: invalid value '5x'"),
        ("poll = 1.5", "serve.toml:1: poll is of type float"),
        ("poll = [\"1s\", \"2s\"]", "serve.toml:1: poll takes one value, no list"),
        ("poll = \"1s\"\npoll = \"2s\"", "serve.toml:2: duplicate key"),
        (
            "record-size = 1\nrecord_size = 2",
            "serve.toml:2: record-size is given twice, also at /etc/portclash/serve.toml:1",
        ),
        ("kubelet-insecure = \"perhaps\"", "serve.toml:1: kubelet-insecure is true or false"),
        ("hooks = \"magic\"", "[possible values: auto, fentry, kprobe, stable]"),
        ("listen = \n", "serve.toml:1: "),
        (
            "tls-cert = \"cert.pem\"",
            "together: the following required arguments were not provided: --tls-key <FILE>",
        ),
        (
            "kubelet-ca = \"x\"\nkubelet-insecure = true",
            "serve.toml:1 and /etc/portclash/serve.toml:2: the argument",
        ),
    ];
    for (file, words) in cases {
        let error = refused(&[], &[], file);
        assert!(error.contains(words), "{file:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = refused(&[], &[("PORTCLASH_DRAIN", "soon")], "");
    assert!(error.starts_with("PORTCLASH_DRAIN: invalid value 'soon'"), "{error}");
}

#[test]
fn options_that_belong_together_may_come_from_different_places() {
    let args = configured(&["--tls-cert", "a.pem"], &[("PORTCLASH_TLS_KEY", "b.pem")], None).args;
    assert_eq!(args.http.tls_key.as_deref(), Some(Path::new("b.pem")));
}

#[test]
fn variables_that_are_no_options_are_left_alone() {
    let variables = [
        ("PORTCLASH_LOG", "debug"),
        ("PORTCLASH_RECORD", ""),
        // A Service named portclash, and one named portclash-metrics.
        ("PORTCLASH_SERVICE_HOST", "10.96.0.7"),
        ("PORTCLASH_SERVICE_PORT", "9847"),
        ("PORTCLASH_SERVICE_PORT_HTTP", "9847"),
        ("PORTCLASH_PORT", "tcp://10.96.0.7:9847"),
        ("PORTCLASH_PORT_9847_TCP_ADDR", "10.96.0.7"),
        ("PORTCLASH_METRICS_SERVICE_HOST", "10.96.0.8"),
        ("PORTCLASH_METRICS_PORT_9847_TCP", "tcp://10.96.0.8:9847"),
    ];
    assert_eq!(configured(&[], &variables, None).args.record.record, None);
    assert!(refused(&[], &[("PORTCLASH_PORT", "1")], "").contains("unknown variable \"PORTCLASH_PORT\""));
}

#[test]
fn the_file_that_is_named_must_be_there_and_the_usual_one_need_not() {
    configured(&[], &[], None);
    let (folder, mut sources) = sources(&[], &[("PORTCLASH_CONFIG", "/nowhere/a.toml")], None);
    let error = configure(&sources).unwrap_err().to_string();
    assert!(error.starts_with("read /nowhere/a.toml: "), "{error}");
    assert!(error.ends_with("(named by PORTCLASH_CONFIG)"), "{error}");
    let other = folder.path().join("other.toml");
    std::fs::write(&other, "drain = \"9s\"").unwrap();
    sources.arguments.extend(["--config".into(), other.clone().into()]);
    let configured = configure(&sources).unwrap();
    assert_eq!((configured.args.drain.as_secs(), configured.args.config.config), (9, Some(other)));
}

#[test]
fn what_is_printed_says_where_it_comes_from_and_can_be_read_again() {
    let file = "record = \"/var/lib/a \\\"b\\\"\"\nkubelet-name = [\"a\", \"b\"]\nnetns = 7\nkubelet_insecure = true";
    let variables = [("PORTCLASH_RECORD_SIZE", "1G")];
    let (folder, sources) = sources(&["--drain", "3s", "--label-pods"], &variables, Some(file));
    let first = configure(&sources).unwrap();
    let text = print(&first);
    insta::assert_snapshot!(text.replace(folder.path().to_str().unwrap(), "/etc/portclash"));
    let again = configured(&[], &[], Some(&text));
    for known in Options::of(&Cli::command()).iter() {
        // What is false by leaving it out is false by saying so.
        assert_eq!(first.value(known).0, again.value(known).0, "{}", known.key);
    }
}

#[test]
fn reading_again_tells_what_changes_now_from_what_waits_and_takes_nothing_broken() {
    let (_folder, sources) = sources(&[], &[], Some("drain = \"1s\"\npoll = \"1s\""));
    let write = |text: &str| std::fs::write(&sources.system_file, text).unwrap();
    let mut reloader = Reloader::new(configure(&sources).unwrap());
    write("drain = \"2s\"\npoll = \"3s\"\nlisten = \"none\"");
    let reread = reloader.read().unwrap();
    assert_eq!((reread.changed.as_slice(), reread.new.args.drain.as_secs()), (&["drain".to_owned()][..], 2));
    assert_eq!(reread.next_start, ["poll", "listen"]);
    reloader.accept(reread);
    // The drain is in force, the others still wait for a start.
    let reread = reloader.read().unwrap();
    assert_eq!(
        (reread.changed.len(), reread.next_start.as_slice()),
        (0, &["poll".into(), "listen".into()][..])
    );
    write("drian = \"2s\"");
    assert!(reloader.read().unwrap_err().to_string().contains("did you mean \"drain\"?"));
    write("poll = \"1s\"\ndrain = \"1s\"");
    let reread = reloader.read().unwrap();
    assert_eq!((reread.changed.as_slice(), reread.next_start.len()), (&["drain".to_owned()][..], 0));
}

#[cfg(feature = "otlp")]
#[test]
fn metrics_are_exported_as_often_as_the_file_says_and_that_changes_while_it_runs() {
    let (_folder, sources) = sources(&[], &[], Some("otlp = \"http://127.0.0.1:4318\""));
    let mut reloader = Reloader::new(configure(&sources).unwrap());
    let mut every = |text: &str| {
        std::fs::write(&sources.system_file, format!("otlp = \"http://127.0.0.1:4318\"\n{text}")).unwrap();
        let reread = reloader.read().unwrap();
        let every = reread.new.args.deliveries(None).unwrap().otlp_metrics_every;
        let changed = reread.changed.clone();
        reloader.accept(reread);
        (every.map(|every| every.as_secs()), changed)
    };
    let changed = vec!["otlp-metrics-every".to_owned()];
    assert_eq!(every(""), (None, vec![]));
    assert_eq!(every("otlp-metrics-every = \"1m\""), (Some(60), changed.clone()));
    assert_eq!(every("otlp-metrics-every = \"0s\""), (None, changed));
    std::fs::write(&sources.system_file, "otlp-metrics-every = \"1m\"").unwrap();
    assert!(reloader.read().unwrap_err().to_string().contains("--otlp"));
}

#[cfg(feature = "kube")]
#[test]
fn a_change_of_one_way_changes_no_other_by_an_option_that_needs_a_new_start() {
    use crate::pods::clients::ApiServer;
    let (_folder, sources) = sources(&[], &[], Some("kubernetes-events = true\nkubeconfig = \"/first\""));
    let started = configure(&sources).unwrap();
    let pods = started.args.sources.clone();
    let mut reloader = Reloader::new(started);
    let other = "kubernetes-events = true\nkubeconfig = \"/second\"\nwebhook = \"http://127.0.0.1:1/\"";
    std::fs::write(&sources.system_file, other).unwrap();
    let ways = crate::cli::serve::reread(&mut reloader, &pods, None).unwrap().deliveries.unwrap();
    assert!(ways.webhook.is_some());
    assert_eq!(ways.events, Some(ApiServer::Kubeconfig("/first".into())));
}

#[test]
fn every_option_is_one_that_a_file_and_a_variable_can_give() {
    let options = Options::of(&Cli::command());
    let keys: Vec<&str> = options.iter().map(|known| known.key.as_str()).collect();
    for key in ["listen", "record", "kubelet-log", "pods", "kubeconfig", "otlp", "keep-privileges"] {
        assert!(keys.contains(&key), "{key} of {keys:?}");
    }
    assert!(keys.len() >= 30, "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains('_')));
}
