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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, as the worst of networks.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let [first, rest @ ..] = self.0 else { return Ok(0) };
            let Some(target) = into.first_mut() else { return Ok(0) };
            (*target, self.0) = (*first, rest);
            Ok(1)
        }
    }

    const LIST: &str = r#"{"apiVersion": "v1", "items": [
        {"metadata": {"name": "a", "namespace": "x"}, "spec": {"containers": [{"name": "c", "env": [{"value": "[}"}]}]}},
        17,
        {"kind": "Node", "metadata": {"name": "n"}},
        {"metadata": {"name": "b", "namespace": "x"}, "spec": {"containers": 1}},
        {"metadata": {"name": "c", "namespace": "y"}, "spec": {"containers": []}}
    ], "metadata": {"resourceVersion": "12", "continue": "", "remainingItemCount": 3}, "kind": "PodList"}
    "#;

    #[test]
    fn items_are_read_one_by_one_and_an_odd_one_hides_no_other() {
        let list = read_pod_list(Drip(LIST.as_bytes())).unwrap();
        assert_eq!(list.items.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!((list.resource_version.as_deref(), list.continue_token), (Some("12"), None));
        let lines: Vec<usize> = list.unreadable.iter().map(|row| row.line).collect();
        assert_eq!(lines, [2, 4], "{:?}", list.unreadable);
        assert!(list.unreadable[1].text.contains("x/b"), "{:?}", list.unreadable);
    }

    #[test]
    fn a_list_cut_off_anywhere_is_no_list() {
        let end = LIST.trim_end().len();
        for cut in 0..end {
            assert!(read_pod_list(&LIST.as_bytes()[..cut]).is_err(), "{cut}");
        }
        assert!(read_pod_list(&LIST.as_bytes()[..end]).is_ok());
    }

    #[test]
    fn another_kind_is_refused() {
        assert!(read_service_list(LIST.as_bytes()).unwrap_err().contains("ServiceList"));
        assert!(read_pod_list(&br#"{"kind": "Status", "code": 403}"#[..]).is_err());
        assert!(read_pod_list(&b"[]"[..]).is_err());
    }
}
