//! Which source is asked when: one by name, or the first that answers; again after an interval, after a trouble, and
//! when somebody misses a pod.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

#[cfg(feature = "kube")]
use super::api::ApiOptions;
use super::backoff::Backoff;
#[cfg(feature = "kube")]
use super::collection::{PodsOfNode, Services};
use super::cri::{self, CriOptions, Sandboxes};
use super::kubelet::{self, KubeletOptions};
use super::task::Task;
use super::voice::{Closed, Topic, Voice};
#[cfg(feature = "kube")]
use super::watch::Watcher;
use crate::pods::update::{PodSourceKind, PodUpdate, UpdateSender};

/// Failures in a row after which `auto` looks for another source.
const GIVE_UP: u32 = 3;

/// Whom to ask for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodsFrom {
    /// The first that answers: kubelet, then the API server, then the container runtime.
    Auto,
    /// kubelet.
    Kubelet,
    /// The API server.
    Api,
    /// The container runtime.
    Cri,
}

/// Where all sources are, and how often they are asked.
#[derive(Clone)]
pub struct ClientOptions {
    /// kubelet.
    pub kubelet: KubeletOptions,
    /// The API server.
    #[cfg(feature = "kube")]
    pub api: ApiOptions,
    /// The container runtime.
    pub cri: CriOptions,
    /// Between two lists of kubelet or the runtime. The API server is watched instead.
    pub poll: Duration,
    /// Shortest time between two lists that somebody asked for by [`Clients::refresh`].
    pub refresh: Duration,
    /// Waits after troubles.
    pub backoff: Backoff,
    /// How long `auto` is content with a lesser source before it tries the better ones again.
    pub content: Duration,
    /// Whether `auto` names sources that are not there at all as it does those in trouble.
    pub name_absent: bool,
}

impl ClientOptions {
    /// 30 s between lists, 2 s between those asked for, 5 min with a lesser source.
    pub fn new(kubelet: KubeletOptions, #[cfg(feature = "kube")] api: ApiOptions, cri: CriOptions) -> Self {
        Self {
            kubelet,
            #[cfg(feature = "kube")]
            api,
            cri,
            poll: Duration::from_secs(30),
            refresh: Duration::from_secs(2),
            backoff: Backoff::default(),
            content: Duration::from_mins(5),
            name_absent: true,
        }
    }
}

/// Running sources. They end when this is dropped, or when the receiver of their messages has gone.
pub struct Clients {
    tasks: Vec<Task>,
    missing: Arc<Notify>,
}

impl Clients {
    /// Somebody met an address that no pod has: list again soon. What is watched is up to date anyway.
    pub fn refresh(&self) {
        self.missing.notify_one();
    }

    /// Whether all tasks have ended by themselves.
    pub fn is_finished(&self) -> bool {
        self.tasks.iter().all(Task::is_finished)
    }
}

/// Starts asking, in tasks of the current tokio runtime: for pods, if wanted, and for Services, which only the API
/// server has.
pub fn follow(
    pods: Option<PodsFrom>,
    services: bool,
    options: &ClientOptions,
    updates: UpdateSender,
) -> Clients {
    // A source that was asked for by name is expected to be there.
    let name_absent = options.name_absent || pods != Some(PodsFrom::Auto);
    let voice = Voice::new(updates, name_absent);
    let missing = Arc::new(Notify::new());
    let mut tasks = Vec::new();
    if let Some(from) = pods {
        let asker = Asker {
            options: options.clone(),
            voice: voice.clone(),
            missing: Arc::clone(&missing),
            sandboxes: Sandboxes::default(),
        };
        tasks.push(Task::spawn(asker.run(from)));
    }
    if services {
        tasks.push(Task::spawn(watch_services(options.clone(), voice)));
    }
    Clients { tasks, missing }
}

#[cfg(feature = "kube")]
async fn watch_services(options: ClientOptions, voice: Voice) {
    let _ = Watcher::<Services>::new(options.api, voice, options.backoff).keep(None).await;
}

#[cfg(not(feature = "kube"))]
async fn watch_services(_: ClientOptions, voice: Voice) {
    let _ = voice.no_answer(PodSourceKind::Api, Topic::Services, NO_API.into(), true).await;
}

#[cfg(not(feature = "kube"))]
const NO_API: &str = "API server: this portclash was built without the feature kube, so it cannot ask";

struct Asker {
    options: ClientOptions,
    voice: Voice,
    missing: Arc<Notify>,
    sandboxes: Sandboxes,
}

/// What can be listed again and again.
#[derive(Clone, Copy)]
enum Polled {
    Kubelet,
    Cri,
}

impl Asker {
    async fn run(self, from: PodsFrom) {
        // It ends when nobody listens any more, or when there is nothing to ask.
        let _ = match from {
            PodsFrom::Auto => self.first_that_answers().await,
            PodsFrom::Kubelet => self.poll(Polled::Kubelet, None).await,
            PodsFrom::Cri => self.poll(Polled::Cri, None).await,
            PodsFrom::Api => self.watch().await,
        };
    }

    async fn first_that_answers(&self) -> Result<(), Closed> {
        let mut backoff = self.options.backoff;
        loop {
            if self.list(Polled::Kubelet).await? {
                backoff.reset();
                sleep_until_due(&self.missing, &self.options).await;
                self.poll(Polled::Kubelet, Some(GIVE_UP)).await?;
            } else if self.watch_while_content().await? {
                backoff.reset();
            } else if self.list(Polled::Cri).await? {
                backoff.reset();
                let polling = async {
                    sleep_until_due(&self.missing, &self.options).await;
                    self.poll(Polled::Cri, Some(GIVE_UP)).await
                };
                timeout(self.options.content, polling).await.unwrap_or(Ok(()))?;
            } else {
                self.voice.nobody_there();
                sleep(backoff.wait()).await;
            }
        }
    }

    /// Lists every interval; ends after this many failures in a row, or never.
    async fn poll(&self, what: Polled, give_up: Option<u32>) -> Result<(), Closed> {
        let mut backoff = self.options.backoff;
        let mut failures = 0;
        loop {
            if self.list(what).await? {
                backoff.reset();
                failures = 0;
                sleep_until_due(&self.missing, &self.options).await;
            } else {
                failures += 1;
                if give_up.is_some_and(|most| failures >= most) {
                    return Ok(());
                }
                sleep(backoff.wait()).await;
            }
        }
    }

    /// Lists and says it, or the trouble; whether there was an answer.
    async fn list(&self, what: Polled) -> Result<bool, Closed> {
        match what {
            Polled::Kubelet => self.list_kubelet().await,
            Polled::Cri => self.list_cri().await,
        }
    }

    async fn list_kubelet(&self) -> Result<bool, Closed> {
        let answer = match kubelet::list(&self.options.kubelet).await {
            Ok(answer) => answer,
            Err(error) => {
                let none = self.options.kubelet.shows_none(&error).await;
                self.voice.no_answer(PodSourceKind::Kubelet, Topic::Pods, error.to_string(), none).await?;
                return Ok(false);
            }
        };
        let source = answer.source;
        let (pods, unreadable) = (answer.pods.items, answer.pods.unreadable);
        self.voice.list(source, Topic::Pods, PodUpdate::All { source, pods, unreadable }).await?;
        if let Some(error) = answer.secure_port {
            let reason = format!("{error}; its read-only port answers instead");
            self.voice.trouble(PodSourceKind::Kubelet, Topic::Pods, reason).await?;
        }
        self.voice.supersede(source).await?;
        Ok(true)
    }

    async fn list_cri(&self) -> Result<bool, Closed> {
        let source = PodSourceKind::Cri;
        match cri::list(&self.options.cri, &self.sandboxes).await {
            Ok(cri::Pods { pods, unreadable }) => {
                self.voice.list(source, Topic::Pods, PodUpdate::All { source, pods, unreadable }).await?;
                self.voice.supersede(source).await?;
                Ok(true)
            }
            Err(error) => {
                let none = self.options.cri.shows_none(&error);
                self.voice.no_answer(source, Topic::Pods, error.to_string(), none).await?;
                Ok(false)
            }
        }
    }

    #[cfg(feature = "kube")]
    fn watcher(&self) -> Watcher<PodsOfNode> {
        Watcher::new(self.options.api.clone(), self.voice.clone(), self.options.backoff)
    }

    #[cfg(feature = "kube")]
    async fn watch(&self) -> Result<(), Closed> {
        self.watcher().keep(None).await
    }

    /// Whether the API server answered at first.
    #[cfg(feature = "kube")]
    async fn watch_while_content(&self) -> Result<bool, Closed> {
        let mut watcher = self.watcher();
        if !watcher.list().await? {
            return Ok(false);
        }
        self.voice.supersede(PodSourceKind::Api).await?;
        timeout(self.options.content, watcher.keep(Some(GIVE_UP))).await.unwrap_or(Ok(()))?;
        Ok(true)
    }

    #[cfg(not(feature = "kube"))]
    async fn watch(&self) -> Result<(), Closed> {
        self.watch_while_content().await.map(drop)
    }

    #[cfg(not(feature = "kube"))]
    async fn watch_while_content(&self) -> Result<bool, Closed> {
        self.voice.no_answer(PodSourceKind::Api, Topic::Pods, NO_API.into(), true).await?;
        Ok(false)
    }
}

/// The interval, or less if a pod is missing.
async fn sleep_until_due(missing: &Notify, options: &ClientOptions) {
    let began = Instant::now();
    // What was missed while the list was made may be in it.
    let shortest = options.refresh.min(options.poll);
    sleep(shortest).await;
    let rest = options.poll.saturating_sub(began.elapsed());
    let _ = timeout(rest, missing.notified()).await;
}
