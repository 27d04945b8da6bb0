//! List once, then watch: the protocol of the API server for changing collections of objects
//! (Kubernetes documentation, "API Concepts", "Efficient detection of changes").

use std::marker::PhantomData;

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Duration, Instant, sleep};

use super::api::{Api, ApiError, ApiOptions};
use super::backoff::Backoff;
use super::collection::{Collection, Metadata, encoded};
use super::http::{Body, HttpError};
use super::reader::parse_body;
use super::voice::{Closed, Topic, Voice};
use crate::kubernetes::stream::StreamedList;
use crate::pods::update::PodSourceKind;

/// Longest event in bytes: objects are limited to 3 MiB by etcd's requests.
const MAX_EVENT: usize = 16 << 20;
/// A watch that lasted this long was no failure, even if nothing happened.
const CALM: Duration = Duration::from_secs(10);
/// Silence that is too long: this much longer than the server was asked to let a watch run.
const GRACE: Duration = Duration::from_secs(30);
/// Pages of one list: more than any cluster needs, so that a server that repeats itself ends.
const MAX_PAGES: usize = 10_000;

const API: PodSourceKind = PodSourceKind::Api;

/// How to list: where the server may take the answer from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Freshness {
    /// From its cache, in any state: cheap, and good enough to begin with.
    Any,
    /// From its cache, but not older than this.
    NotOlderThan(String),
    /// As it is now.
    Latest,
}

/// One collection of one API server.
pub(super) struct Watcher<C> {
    options: ApiOptions,
    voice: Voice,
    backoff: Backoff,
    /// `resourceVersion` up to which everything is known.
    position: Option<String>,
    freshness: Freshness,
    /// Failures since something last came.
    failures: u32,
    collection: PhantomData<C>,
}

impl<C: Collection> Watcher<C> {
    pub(super) fn new(options: ApiOptions, voice: Voice, backoff: Backoff) -> Self {
        Self {
            options,
            voice,
            backoff,
            position: None,
            freshness: Freshness::Any,
            failures: 0,
            collection: PhantomData,
        }
    }

    /// Lists and says all; whether there was anything. A failure is said as well.
    pub(super) async fn list(&mut self) -> Result<bool, Closed> {
        let list = match self.whole_list().await {
            Ok(list) => list,
            Err(error) => {
                self.failures += 1;
                self.voice.no_answer(API, C::TOPIC, error.to_string(), error.shows_none()).await?;
                return Ok(false);
            }
        };
        let empty = list.items.is_empty() && list.unreadable.is_empty();
        self.position = list.resource_version;
        if let Some(position) = &self.position {
            self.freshness = Freshness::NotOlderThan(position.clone());
        }
        self.voice.list(API, C::TOPIC, C::all(list.items, list.unreadable)).await?;
        if empty && C::TOPIC == Topic::Pods {
            let name = &self.options.node_name;
            let reason = format!(
                "API server: it lists no pods of node \"{name}\"; if that is not this node's name, give --node-name \
                 or NODE_NAME"
            );
            self.voice.trouble(API, C::TOPIC, reason).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Keeps what was listed up to date; ends after this many failures in a row, or never.
    pub(super) async fn keep(&mut self, give_up: Option<u32>) -> Result<(), Closed> {
        loop {
            if self.position.is_none() && !self.list().await? {
                if give_up.is_some_and(|most| self.failures >= most) {
                    return Ok(());
                }
                sleep(self.backoff.wait()).await;
                continue;
            }
            self.follow().await?;
            if give_up.is_some_and(|most| self.failures >= most) {
                return Ok(());
            }
            sleep(self.backoff.wait()).await;
        }
    }

    /// One watch to its end. The first failure is followed by another watch from the same position; a second one in a
    /// row is said, and then everything is listed again.
    async fn follow(&mut self) -> Result<(), Closed> {
        let Some(position) = self.position.clone() else { return Ok(()) };
        let began = Instant::now();
        let mut progress = false;
        let end = self.watch(&position, &mut progress).await;
        if progress || began.elapsed() >= CALM {
            self.backoff.reset();
            self.failures = 0;
        }
        let reason = match end {
            Ok(End::Closed) => return Err(Closed),
            Ok(End::Ended) if progress || began.elapsed() >= CALM => return Ok(()),
            Ok(End::Ended) => format!("{} at API server: it ends every watch at once", C::WATCH),
            Ok(End::Gone) => {
                tracing::debug!("{}: resource version {position} is gone, listing again", C::WATCH);
                (self.position, self.freshness) = (None, Freshness::Latest);
                return Ok(());
            }
            Err(error) if error.is_gone() => {
                (self.position, self.freshness) = (None, Freshness::Latest);
                return Ok(());
            }
            Err(error) => error.to_string(),
        };
        self.failures += 1;
        if self.failures > 1 {
            self.position = None;
            self.voice.trouble(API, C::TOPIC, reason).await?;
        } else {
            tracing::debug!("{reason}; going on from resource version {position}");
        }
        Ok(())
    }

    async fn whole_list(&self) -> Result<StreamedList<C::Object>, ApiError> {
        match self.pages(Some(self.options.page)).await {
            // A continuation lives for a few minutes; without pages there is none.
            Err(error) if error.is_gone() => self.pages(None).await,
            result => result,
        }
    }

    async fn pages(&self, limit: Option<u32>) -> Result<StreamedList<C::Object>, ApiError> {
        let mut whole: Option<StreamedList<C::Object>> = None;
        for _ in 0..MAX_PAGES {
            let next = whole.as_ref().and_then(|list| list.continue_token.as_deref());
            let path = format!("{}?{}{}", C::PATH, C::selector(&self.options), self.page_query(limit, next));
            let (response, authority) = Api(&self.options).get(C::LIST, &path).await?;
            let answer = |reason| ApiError::Answer { what: C::LIST, authority: authority.clone(), reason };
            let page = parse_body(response.body, C::read_list).await;
            let page = page.map_err(|source| ApiError::Http {
                what: C::LIST,
                authority: authority.clone(),
                source,
            })?;
            let page = page.map_err(|reason| answer(format!("its answer is no list: {reason}")))?;
            let list = match whole.take() {
                None => page,
                Some(mut before) => {
                    before.items.extend(page.items);
                    before.unreadable.extend(page.unreadable);
                    before.resource_version = page.resource_version.or(before.resource_version);
                    before.continue_token = page.continue_token;
                    before
                }
            };
            if list.continue_token.is_none() {
                return match list.resource_version {
                    Some(_) => Ok(list),
                    None => Err(answer("its list has no resourceVersion, so it cannot be watched".into())),
                };
            }
            whole = Some(list);
        }
        let reason = format!("its list has more than {MAX_PAGES} pages");
        Err(ApiError::Answer { what: C::LIST, authority: String::new(), reason })
    }

    fn page_query(&self, limit: Option<u32>, next: Option<&str>) -> String {
        let limit = limit.map_or_else(String::new, |limit| format!("limit={limit}"));
        match (next, &self.freshness) {
            (Some(next), _) => format!("{limit}&continue={}", encoded(next)),
            (None, Freshness::Any) => format!("{limit}&resourceVersion=0"),
            (None, Freshness::NotOlderThan(position)) => {
                format!("{limit}&resourceVersion={}&resourceVersionMatch=NotOlderThan", encoded(position))
            }
            (None, Freshness::Latest) => limit,
        }
    }

    async fn watch(&mut self, position: &str, progress: &mut bool) -> Result<End, ApiError> {
        let seconds = self.options.watch.as_secs().max(1);
        let path = format!(
            "{}?{}watch=true&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={seconds}",
            C::PATH,
            C::selector(&self.options),
            encoded(position)
        );
        let (response, authority) = Api(&self.options).get(C::WATCH, &path).await?;
        let mut lines = Lines::new(response.body.endless(self.options.watch + GRACE));
        loop {
            let line = lines.next().await;
            let line = line.map_err(|source| ApiError::Http {
                what: C::WATCH,
                authority: authority.clone(),
                source,
            })?;
            let Some(line) = line else { return Ok(End::Ended) };
            match self.event(&line).await {
                Ok(Next::Event) => *progress = true,
                Ok(Next::End(end)) => return Ok(end),
                Err(reason) => return Err(ApiError::Answer { what: C::WATCH, authority, reason }),
            }
        }
    }

    async fn event(&mut self, line: &[u8]) -> Result<Next, String> {
        let unfit = |_| "what it sends is no watch event".to_owned();
        let event: Event<'_> = serde_json::from_slice(line).map_err(unfit)?;
        let text = event.object.get();
        if event.kind == "ERROR" {
            let status: Status = serde_json::from_str(text).map_err(unfit)?;
            return match status.code {
                Some(410) => Ok(Next::End(End::Gone)),
                Some(code) => Err(format!("the watch ends with error {code}")),
                None => Err("the watch ends with an error".into()),
            };
        }
        let head: Head = serde_json::from_str(text).map_err(unfit)?;
        let (name, version) = (head.metadata.name.clone(), head.metadata.resource_version.clone());
        let update = match event.kind.as_str() {
            "ADDED" | "MODIFIED" => match C::read_one(text) {
                Ok(object) => Some(C::changed(object)),
                Err(reason) => {
                    tracing::warn!("{}: {}/{name}: {reason}", C::WATCH, head.metadata.namespace);
                    None
                }
            },
            "DELETED" => Some(C::gone(head.metadata)),
            // BOOKMARK: only the position. What else a newer server may send is not ours to judge.
            _ => None,
        };
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            self.freshness = Freshness::NotOlderThan(version.clone());
            self.position = Some(version);
        }
        let Some(update) = update else { return Ok(Next::Event) };
        Ok(self.voice.send(update).await.map_or(Next::End(End::Closed), |()| Next::Event))
    }
}

enum End {
    /// The server has ended it, as it was asked to.
    Ended,
    /// The position is too old.
    Gone,
    /// Nobody listens any more.
    Closed,
}

enum Next {
    Event,
    End(End),
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
}

#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

/// Splits a body into lines.
struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Up to here the buffer has no line end.
    searched: usize,
}

impl Lines {
    fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    async fn next(&mut self) -> Result<Option<BytesMut>, HttpError> {
        loop {
            let found =
                self.buffer.get(self.searched..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n'));
            if let Some(at) = found {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_EVENT {
                return Err(HttpError::TooLarge { limit: MAX_EVENT as u64 });
            }
            match self.body.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                // A last line without its end was cut, and comes again with the next watch.
                None => return Ok(None),
            }
        }
    }
}
