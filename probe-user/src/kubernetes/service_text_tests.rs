use std::net::IpAddr;

use super::*;
use crate::ipvs::table::Protocol;
use crate::kubernetes::parse_services;

const SEED: &str = include_str!("testdata/services_without_header.txt");

fn list(text: &str) -> ServiceList {
    parse_services(text.as_bytes()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn only(text: &str) -> KubeService {
    let list = list(text);
    assert_eq!(list.unreadable, [], "{text}");
    assert_eq!(list.items.len(), 1, "{text}");
    list.items.into_iter().next().unwrap()
}

/// Protocol, port, node port.
fn ports(service: &KubeService) -> Vec<(Protocol, u16, Option<u16>)> {
    service.ports.iter().map(|port| (port.protocol, port.port, port.node_port)).collect()
}

#[test]
fn rows_without_header_and_with_single_blanks() {
    let list = list(SEED);
    assert_eq!(list.unreadable, []);
    assert_eq!(list.items.len(), 8);
    let mut node_ports: Vec<u16> =
        list.items.iter().flat_map(|service| &service.ports).filter_map(|port| port.node_port).collect();
    node_ports.sort_unstable();
    assert_eq!(
        node_ports,
        [20869, 21980, 24795, 24855, 28796, 31221, 32080, 32443, 35723, 35934, 36321, 36704, 37629]
    );
    let dashboard = &list.items[2];
    assert_eq!(dashboard.namespace.as_deref(), Some("kube-system"));
    assert_eq!(dashboard.name, "kubernetes-dashboard");
    assert_eq!(dashboard.kind, Some(ServiceType::NodePort));
    assert_eq!(dashboard.cluster_ips, [ip("10.23.254.52")]);
    assert!(dashboard.external_ips.is_empty());
    assert_eq!(ports(dashboard), [(Protocol::Tcp, 443, Some(36704))]);
    assert_eq!(list.items[0].load_balancer_ips, [ip("10.10.112.20")]);
}

// rancher/k3k#297
#[test]
fn columns_by_the_header_with_namespace_and_type() {
    let listing = list(
        "NAMESPACE     NAME             TYPE           CLUSTER-IP      EXTERNAL-IP   PORT(S)                      AGE   SELECTOR\n\
         default       kubernetes       ClusterIP      10.43.0.1       <none>        443/TCP                      2d    <none>\n\
         kube-system   kube-dns         ClusterIP      10.43.0.10      <none>        53/UDP,53/TCP,9153/TCP       2d    k8s-app=kube-dns\n\
         kube-system   traefik          LoadBalancer   10.43.84.73     <pending>     80:31388/TCP,443:30170/TCP   2d    app=traefik\n\
         kube-system   headless         ClusterIP      None            <none>        <none>                       2d    app=x\n\
         other         alias            ExternalName   <none>          db.example    <none>                       2d    <none>\n",
    );
    assert_eq!(listing.unreadable, []);
    assert_eq!(listing.items.len(), 5);
    assert_eq!(
        ports(&listing.items[1]),
        [(Protocol::Udp, 53, None), (Protocol::Tcp, 53, None), (Protocol::Tcp, 9153, None)]
    );
    let traefik = &listing.items[2];
    assert!(traefik.load_balancer_ips.is_empty());
    assert_eq!(ports(traefik), [(Protocol::Tcp, 80, Some(31388)), (Protocol::Tcp, 443, Some(30170))]);
    assert!(listing.items[3].cluster_ips.is_empty());
    assert_eq!(listing.items[4].kind, Some(ServiceType::ExternalName));
}

// linkerd/linkerd-examples#166
#[test]
fn neither_namespace_nor_type() {
    let service = only(
        "NAME         CLUSTER-IP   EXTERNAL-IP     PORT(S)                                        AGE\n\
         l5d          10.0.0.85    192.0.2.9       4140:30411/TCP,9990:30126/TCP,4141:31189/TCP   5m\n",
    );
    assert_eq!((service.namespace.as_deref(), service.kind), (None, None));
    assert_eq!(service.external_ips, [ip("192.0.2.9")]);
    assert_eq!(service.ports.len(), 3);
}

#[test]
fn an_empty_cell_does_not_shift_the_columns() {
    let service = only(
        "NAME         CLUSTER_IP   EXTERNAL_IP     PORT(S)         SELECTOR  AGE\n\
         web          10.0.0.85                    80:30411/TCP    app=web   5m\n",
    );
    assert_eq!(ports(&service), [(Protocol::Tcp, 80, Some(30411))]);
    let shifted = list(
        "NAME         CLUSTER-IP   EXTERNAL-IP     PORT(S)         AGE\n\
         a-name-longer-than-its-column 10.0.0.85  80:30411/TCP    5m\n\
         ok           10.0.0.86    <none>          81/TCP          5m\n",
    );
    assert_eq!(shifted.items.len(), 1);
    assert_eq!(shifted.unreadable.len(), 1);
    assert_eq!(shifted.unreadable[0].line, 2);
}

#[test]
fn without_header_each_mix_of_columns_is_told_apart() {
    let cases = [
        ("web 10.0.0.1 <none> 80/TCP 5d", None, None),
        ("web ClusterIP 10.0.0.1 <none> 80/TCP 5d", None, Some(ServiceType::ClusterIp)),
        ("shop web 10.0.0.1 <none> 80/TCP 5d", Some("shop"), None),
        (
            "shop web NodePort 10.0.0.1 <none> 80:30080/TCP 5d app=web",
            Some("shop"),
            Some(ServiceType::NodePort),
        ),
    ];
    for (line, namespace, kind) in cases {
        let service = only(line);
        assert_eq!((service.namespace.as_deref(), service.kind), (namespace, kind), "{line}");
        assert_eq!((service.name.as_str(), service.ports[0].port), ("web", 80), "{line}");
    }
}

// kubernetes/kubernetes#7658
#[test]
fn several_rows_per_service_are_refused() {
    let with_header = "NAME                 LABELS                                    SELECTOR           IP(S)           PORT(S)\n\
         kubernetes           component=apiserver,provider=kubernetes   <none>             10.254.0.1      443/TCP\n\
         skydns               k8s-app=skydns                            k8s-app=skydns     10.254.0.10     53/UDP\n\
         \u{20}                                                                                              53/TCP\n";
    let headless: String = with_header.lines().skip(1).take(2).fold(String::new(), |a, b| a + b + "\n");
    let older = with_header.replace("IP(S)  ", "IP     ");
    for (text, line) in [(with_header, 1), (&older, 1), (&headless, 1)] {
        let error = parse_services(text.as_bytes()).unwrap_err();
        assert_eq!(error, ParseError::OldLayout { line }, "{text}");
        assert!(error.to_string().contains("-o json"));
    }
}

#[test]
fn shortened_external_addresses_are_not_taken() {
    let list = list(
        "NAME  TYPE           CLUSTER-IP  EXTERNAL-IP         PORT(S)        AGE\n\
                     web   LoadBalancer   10.0.0.7    10.0.0.9,10.0....   80:30080/TCP   5m\n",
    );
    assert_eq!(list.items[0].load_balancer_ips, [ip("10.0.0.9")]);
    assert!(list.notes.iter().any(|note| note.contains("shortened")), "{:?}", list.notes);
}

#[test]
fn ipv6_and_dual_stack() {
    let service = only("web ClusterIP fd00::1,10.0.0.1 2001:db8::9 80/TCP 5d");
    assert_eq!(service.cluster_ips, [ip("fd00::1"), ip("10.0.0.1")]);
    assert_eq!(service.external_ips, [ip("2001:db8::9")]);
}

#[test]
fn node_ports_that_kubectl_does_not_show_are_said() {
    let list = list("web NodePort 10.0.0.1 <nodes> 80/TCP 5d");
    assert!(list.notes.iter().any(|note| note.contains("show no node port")), "{:?}", list.notes);
}

#[test]
fn the_tables_of_get_all() {
    let list = list(
        "NAMESPACE   NAME        READY   STATUS    RESTARTS   AGE\n\
                     default     pod/web-1   1/1     Running   0          5d\n\
                     \n\
                     NAMESPACE   NAME                 TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE\n\
                     default     service/kubernetes   NodePort    10.0.0.1     <none>        443:30443/TCP  5d\n\
                     \n\
                     NAMESPACE   NAME                  READY   UP-TO-DATE   AVAILABLE   AGE\n\
                     default     deployment.apps/web   1/1     1            1           5d\n",
    );
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].name, "kubernetes");
    assert_eq!(list.unreadable, []);
    assert!(list.notes.iter().any(|note| note.starts_with("2 rows of other tables")), "{:?}", list.notes);
}

#[test]
fn bad_rows_are_shown_and_hide_no_others() {
    let list = list(
        "$ kubectl get svc -A\n\
                     a one ClusterIP 10.0.0.1 <none> 80/TCP 5d\n\
                     a two ClusterIP 10.0.0.2 <none> 80:99999/TCP 5d\n\
                     a three Unknown 10.0.0.3 <none> 80/TCP 5d\n\
                     a four ClusterIP 10.0.0.4 <none> 80/ICMP 5d\n\
                     a five ClusterIP 10.0.0.5 <none> 443:367\n\
                     Error from server: timeout\n\
                     a six ClusterIP 10.0.0.6 <none> 80/TCP 5d",
    );
    let names: Vec<_> = list.items.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["one", "six"]);
    let shown: Vec<_> = list.unreadable.iter().map(|row| (row.line, row.reason.as_str())).collect();
    assert_eq!(
        shown,
        [
            (3, "node port 99999 is not between 1 and 65535"),
            (4, "unknown type of Service `Unknown`"),
            (5, "unknown protocol `ICMP`"),
            (6, "`443:367` is no port with its protocol"),
            (7, "it has no cluster IP, which a row of `kubectl get svc` has"),
        ]
    );
}

#[test]
fn bom_and_crlf() {
    let service = only(
        "\u{feff}NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE\r\n\
                        web    ClusterIP   10.0.0.1     <none>        80/TCP    5d\r\n",
    );
    assert_eq!(service.name, "web");
}
