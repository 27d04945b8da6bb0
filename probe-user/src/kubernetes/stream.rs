//! Lists and objects as kubelet and the API server send them: read from a stream item by item, so that neither the
//! text of the whole list nor anything that is not wanted is ever held.

use std::fmt;
use std::io::{BufReader, Read};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::collect::{Collector, Place, items_of};
use super::json::reason;
use super::objects::Object;
use super::pod::Pod;
use super::service::KubeService;
use crate::ipvs::table::Unreadable;

/// Bytes that are taken from the stream at once.
const BUFFER: usize = 64 * 1024;

/// A list, or one page of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamedList<T> {
    /// Every object that could be read.
    pub items: Vec<T>,
    /// The others; `line` counts the items from 1.
    pub unreadable: Vec<Unreadable>,
    /// `metadata.resourceVersion`: where a watch goes on.
    pub resource_version: Option<String>,
    /// `metadata.continue`: more pages follow.
    pub continue_token: Option<String>,
}

/// Reads a `PodList`. The error is about the list as a whole; an item that cannot be read is in the result.
pub fn read_pod_list(stream: impl Read) -> Result<StreamedList<Pod>, String> {
    read_list(stream)
}

/// Reads a `ServiceList`.
pub fn read_service_list(stream: impl Read) -> Result<StreamedList<KubeService>, String> {
    read_list(stream)
}

/// Reads one Pod.
pub fn read_pod(text: &str) -> Result<Pod, String> {
    read_object(text)
}

/// Reads one Service.
pub fn read_service(text: &str) -> Result<KubeService, String> {
    read_object(text)
}

fn read_object<T: Object>(text: &str) -> Result<T, String> {
    let raw: T::Raw = serde_json::from_str(text).map_err(|error| reason(&error))?;
    T::from_raw(raw)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

fn read_list<T: Object>(stream: impl Read) -> Result<StreamedList<T>, String> {
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::with_capacity(BUFFER, stream));
    let mut collector = Collector::<T>::default();
    let mut metadata = ListMetadata::default();
    let list = List { collector: &mut collector, metadata: &mut metadata };
    list.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|error| {
        if error.is_eof() || error.is_io() { "it ends in the middle".to_owned() } else { reason(&error) }
    })?;
    if let Some(reason) = collector.cut_short {
        return Err(reason);
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(StreamedList {
        items: collector.items,
        unreadable: collector.log.finish(),
        resource_version: given(metadata.resource_version),
        continue_token: given(metadata.r#continue),
    })
}

struct List<'c, T> {
    collector: &'c mut Collector<T>,
    metadata: &'c mut ListMetadata,
}

impl<'de, T: Object> DeserializeSeed<'de> for List<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Object> Visitor<'de> for List<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}List", T::KIND)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" => {
                    let kind: String = map.next_value()?;
                    if items_of(&kind) != Some(T::KIND) {
                        return Err(Error::custom(format!("not a {}List", T::KIND)));
                    }
                }
                "metadata" => {
                    *self.metadata = map.next_value::<Option<ListMetadata>>()?.unwrap_or_default();
                }
                "items" => map.next_value_seed(Items { collector: &mut *self.collector })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if self.collector.lists == 0 {
            return Err(Error::custom("it has no items"));
        }
        Ok(())
    }
}

struct Items<'c, T> {
    collector: &'c mut Collector<T>,
}

impl<'de, T: Object> DeserializeSeed<'de> for Items<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object> Visitor<'de> for Items<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    /// Go writes an empty list as null.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.collector.begin_list();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.collector.begin_list();
        let mut index = 0;
        while let Some(item) = seq.next_element::<Box<RawValue>>()? {
            let text = item.get();
            let raw = serde_json::from_str::<T::Raw>(text).map_err(|error| reason(&error));
            let place = Place { line: index + 1, index: Some(index) };
            self.collector
                .take(place, Some(T::KIND), raw, || serde_json::from_str(text).unwrap_or_default())
                .map_err(|_| Error::custom("too many objects"))?;
            index += 1;
        }
        Ok(())
    }
}
