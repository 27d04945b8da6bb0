//! A committed manifest as a kubelet would run it: its pod's namespaces, security context, environment and mounts, turned into
//! requests to the runtime. A field that is neither used nor known to make no difference here is an error, so that the
//! container in the lab has exactly what the manifest says.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::spec::{PodSpec, sandbox_config};
use super::{NODE_NAME, cri};
use crate::yaml;

/// Its pod, as the DaemonSet controller would name it.
pub const POD: PodSpec = PodSpec {
    namespace: "portclash",
    name: "portclash-x2v7k",
    uid: "9f1c7c52-6a0b-4a56-9d4b-53b0a2a6d7e1",
    host_network: true,
    containers: Vec::new(),
};
/// Where the lab keeps what a kubelet would keep below /var/lib/kubelet.
const VOLUMES: &str = "/run/portclash-volumes";
/// What a kubelet asks to hide (pkg/securitycontext/util.go, `procMount: Default`).
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What a kubelet asks to protect.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Score of pods that are critical to the node (pkg/kubelet/qos/policy.go).
const CRITICAL_SCORE: i64 = -997;

/// Files that the cluster would give the pod.
pub struct Given<'a> {
    /// Content of the file `serve.toml` of its ConfigMap.
    pub configuration: &'a str,
    /// Token of its service account.
    pub token: &'a str,
    /// The cluster's authority, PEM.
    pub authority: &'a str,
    /// Address and port of the API server.
    pub api_server: (&'a str, &'a str),
}

/// A pod with one container, ready to be asked for.
#[derive(Clone)]
pub struct Manifest {
    pub(super) sandbox: cri::PodSandboxConfig,
    pub(super) container: cri::ContainerConfig,
    probes: Map<String, Value>,
    ports: Vec<Value>,
    /// `terminationGracePeriodSeconds`.
    pub grace_s: i64,
}

impl Manifest {
    /// Reads the workload (DaemonSet or Job) of a file.
    pub fn read(path: &str, given: &Given<'_>) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let documents = yaml::documents(&text).with_context(|| path.to_owned())?;
        let pod = documents.iter().find_map(|document| document.pointer("/spec/template/spec"));
        of_pod(pod.with_context(|| format!("{path} has no pod"))?, given).with_context(|| path.to_owned())
    }

    /// The same with more arguments.
    #[must_use]
    pub fn with_more_arguments(mut self, arguments: &[&str]) -> Self {
        self.container.args.extend(arguments.iter().map(|word| (*word).to_owned()));
        self
    }

    /// The same under the runtime's own filter of system calls.
    #[must_use]
    pub fn with_runtimes_filter(mut self) -> Self {
        let filter = || Some(cri::SecurityProfile { profile_type: cri::RUNTIME_DEFAULT });
        if let Some(context) = self.container.linux.as_mut().and_then(|linux| linux.security_context.as_mut())
        {
            context.seccomp = filter();
        }
        self
    }

    /// Name of the image.
    pub fn image(&self) -> &str {
        self.container.image.as_ref().map_or("", |image| &image.image)
    }

    /// Address and path of a probe: `startupProbe`, `readinessProbe` or `livenessProbe`, all of them httpGet.
    pub fn probe(&self, kind: &str) -> Result<(SocketAddr, String)> {
        let get = self.probes.get(kind).and_then(|probe| probe.get("httpGet")).context("no such probe")?;
        let text = |key: &str| get.get(key).and_then(Value::as_str);
        let (host, path) = (text("host").context("no host")?, text("path").context("no path")?);
        let named = text("port").context("no name of a port")?;
        let port = self.ports.iter().find(|port| port["name"] == named).context("no such port")?;
        Ok((format!("{host}:{}", port["containerPort"]).parse()?, path.to_owned()))
    }

    /// Where the runtime writes what the container prints.
    pub fn log(&self) -> PathBuf {
        Path::new(&self.sandbox.log_directory).join(&self.container.log_path)
    }

    /// Where a path of the container is on the node.
    pub fn on_node(&self, path: &str) -> Option<PathBuf> {
        let mount = self.container.mounts.iter().find(|mount| mount.container_path == path)?;
        Some(PathBuf::from(&mount.host_path))
    }
}

/// Fields of an object that are taken one by one.
struct Fields<'a> {
    what: &'a str,
    left: Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(what: &'a str, value: &Value) -> Result<Self> {
        Ok(Self { what, left: value.as_object().with_context(|| format!("{what} is no object"))?.clone() })
    }

    fn take(&mut self, key: &str) -> Value {
        self.left.remove(key).unwrap_or_default()
    }

    fn text(&mut self, key: &str) -> Result<String> {
        let value = self.take(key);
        Ok(value.as_str().with_context(|| format!("{}.{key} is {value}", self.what))?.to_owned())
    }

    fn truth(&mut self, key: &str) -> Result<bool> {
        let value = self.take(key);
        value.as_bool().with_context(|| format!("{}.{key} is {value}", self.what))
    }

    fn list(&mut self, key: &str) -> Result<Vec<Value>> {
        let value = self.take(key);
        if value.is_null() { Ok(Vec::new()) } else { Ok(value.as_array().context("no list")?.clone()) }
    }

    fn texts(&mut self, key: &str) -> Result<Vec<String>> {
        let items = self.list(key)?;
        let text = |item: &Value| Ok(item.as_str().with_context(|| format!("{key} has {item}"))?.to_owned());
        items.iter().map(text).collect()
    }

    /// What is left must be among the fields that make no difference here.
    fn done(self, no_difference: &[&str]) -> Result<()> {
        let rest = self.left.keys().find(|key| !no_difference.contains(&key.as_str()));
        rest.map_or(Ok(()), |key| bail!("the lab does not know what to do with {}.{key}", self.what))
    }
}

fn of_pod(pod: &Value, given: &Given<'_>) -> Result<Manifest> {
    let mut pod = Fields::of("the pod", pod)?;
    ensure!(pod.truth("hostNetwork")? && pod.truth("hostPID")?, "the pod has namespaces of its own");
    let volumes = pod.list("volumes")?;
    // Kubernetes' default.
    let grace_s = pod.take("terminationGracePeriodSeconds").as_i64().unwrap_or(30);
    let critical = pod.take("priorityClassName") == "system-node-critical";
    let containers = pod.list("containers")?;
    let [container] = containers.as_slice() else { bail!("the pod has {} containers", containers.len()) };
    pod.done(&[
        "serviceAccountName",
        "automountServiceAccountToken",
        "dnsPolicy",
        "enableServiceLinks",
        "nodeSelector",
        "nodeName",
        "restartPolicy",
        "tolerations",
    ])?;
    let namespaces = cri::NamespaceOption { network: cri::NODE, pid: cri::NODE };
    let mut sandbox = sandbox_config(&POD);
    if let Some(linux) = &mut sandbox.linux {
        linux.security_context = Some(cri::SandboxSecurityContext {
            namespace_options: Some(namespaces.clone()),
            seccomp: Some(cri::SecurityProfile { profile_type: cri::RUNTIME_DEFAULT }),
        });
    }
    let mut fields = Fields::of("the container", container)?;
    let name = fields.text("name")?;
    let mut context = security_context(&fields.take("securityContext"))?;
    context.namespace_options = Some(namespaces);
    let score = if critical { CRITICAL_SCORE } else { 0 };
    let mut labels = sandbox.labels.clone();
    labels.insert("io.kubernetes.container.name".to_owned(), name.clone());
    let config = cri::ContainerConfig {
        image: Some(cri::ImageSpec { image: fields.text("image")? }),
        // A manifest's `command` would replace the image's entry point, `args` its arguments.
        command: fields.texts("command")?,
        args: fields.texts("args")?,
        envs: environment(&fields.list("env")?, given)?,
        mounts: mounts(&fields.list("volumeMounts")?, &volumes, given)?,
        labels,
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(&fields.take("resources"), score)?),
            security_context: Some(context),
        }),
        metadata: Some(cri::ContainerMetadata { name }),
    };
    let mut probes = Map::new();
    for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let probe = fields.take(kind);
        if !probe.is_null() {
            probes.insert(kind.to_owned(), probe);
        }
    }
    let ports = fields.list("ports")?;
    fields.done(&["imagePullPolicy"])?;
    Ok(Manifest { sandbox, container: config, probes, ports, grace_s })
}

fn security_context(value: &Value) -> Result<cri::ContainerSecurityContext> {
    let mut fields = Fields::of("securityContext", value)?;
    let number = |value: Value| value.as_i64().map(|value| cri::Int64Value { value });
    let capabilities = fields.take("capabilities");
    let mut asked = Fields::of("capabilities", &capabilities)?;
    let capabilities = cri::Capability { add: asked.texts("add")?, drop: asked.texts("drop")? };
    asked.done(&[])?;
    let profile = |value: Value| match value.pointer("/type").and_then(Value::as_str) {
        Some("Unconfined") => Ok(Some(cri::SecurityProfile { profile_type: cri::UNCONFINED })),
        Some("RuntimeDefault") => Ok(Some(cri::SecurityProfile { profile_type: cri::RUNTIME_DEFAULT })),
        other => bail!("a profile of type {other:?}"),
    };
    let context = cri::ContainerSecurityContext {
        capabilities: Some(capabilities),
        privileged: fields.truth("privileged")?,
        namespace_options: None,
        run_as_user: number(fields.take("runAsUser")),
        run_as_group: number(fields.take("runAsGroup")),
        readonly_rootfs: fields.truth("readOnlyRootFilesystem")?,
        no_new_privs: !fields.truth("allowPrivilegeEscalation")?,
        masked_paths: MASKED.iter().map(|path| (*path).to_owned()).collect(),
        readonly_paths: READ_ONLY.iter().map(|path| (*path).to_owned()).collect(),
        seccomp: profile(fields.take("seccompProfile"))?,
        apparmor: profile(fields.take("appArmorProfile"))?,
    };
    fields.done(&[])?;
    Ok(context)
}

fn resources(value: &Value, oom_score_adj: i64) -> Result<cri::LinuxContainerResources> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str);
    let millicores = text("/requests/cpu").and_then(|cpu| cpu.strip_suffix('m')?.parse::<i64>().ok());
    let mebibytes = text("/limits/memory").and_then(|memory| memory.strip_suffix("Mi")?.parse::<i64>().ok());
    ensure!(value.pointer("/limits/cpu").is_none(), "the lab does not know limits on CPU");
    Ok(cri::LinuxContainerResources {
        cpu_shares: millicores.context("no request for CPU")? * 1024 / 1000,
        memory_limit_in_bytes: mebibytes.context("no limit on memory")? << 20,
        oom_score_adj,
    })
}

fn environment(variables: &[Value], given: &Given<'_>) -> Result<Vec<cri::KeyValue>> {
    let pair = |key: &str, value: &str| cri::KeyValue { key: key.to_owned(), value: value.to_owned() };
    // Every pod is told where the API server is.
    let (host, port) = given.api_server;
    let mut envs = vec![pair("KUBERNETES_SERVICE_HOST", host), pair("KUBERNETES_SERVICE_PORT", port)];
    for variable in variables {
        let text = |path: &str| variable.pointer(path).and_then(Value::as_str);
        let name = text("/name").context("a variable without a name")?;
        let value = match (text("/value"), text("/valueFrom/fieldRef/fieldPath")) {
            (Some(value), _) => value,
            (None, Some("spec.nodeName")) => NODE_NAME,
            _ => bail!("the lab does not know the value of {variable}"),
        };
        envs.push(pair(name, value));
    }
    Ok(envs)
}

fn mounts(mounts: &[Value], volumes: &[Value], given: &Given<'_>) -> Result<Vec<cri::Mount>> {
    let mut asked = Vec::new();
    for mount in mounts {
        let mut fields = Fields::of("a mount", mount)?;
        let name = fields.text("name")?;
        let container_path = fields.text("mountPath")?;
        let readonly = fields.take("readOnly").as_bool().unwrap_or(false);
        fields.done(&[])?;
        let volume = volumes.iter().find(|volume| volume["name"] == name.as_str());
        let host_path = volume_on_node(volume.with_context(|| format!("there is no volume {name}"))?, given)?;
        asked.push(cri::Mount { container_path, host_path, readonly });
    }
    Ok(asked)
}

/// Makes the volume, as a kubelet would, and tells where it is.
fn volume_on_node(volume: &Value, given: &Given<'_>) -> Result<String> {
    let mut fields = Fields::of("a volume", volume)?;
    let name = fields.text("name")?;
    if let Some(path) = volume.pointer("/hostPath/path").and_then(Value::as_str) {
        ensure!(
            volume.pointer("/hostPath/type").is_some_and(|kind| *kind == "Directory"),
            "{name}: the lab knows folders only"
        );
        ensure!(Path::new(path).is_dir(), "the node has no folder {path}");
        return Ok(path.to_owned());
    }
    let folder = Path::new(VOLUMES).join(&name);
    let files: Vec<(&str, &str)> = if volume.get("configMap").is_some() {
        vec![("serve.toml", given.configuration)]
    } else if volume.get("projected").is_some() {
        vec![("token", given.token), ("ca.crt", given.authority), ("namespace", POD.namespace)]
    } else if volume.get("emptyDir").is_some() {
        Vec::new()
    } else {
        bail!("the lab does not know how to make the volume {name}");
    };
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for (file, content) in files {
        fs::write(folder.join(file), content)?;
    }
    folder.to_str().map(str::to_owned).context("no text")
}
