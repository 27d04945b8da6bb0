//! Clients that want too much.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Got, ask, exchange, get};
use super::*;

/// Waits until the server has closed the connection, and returns what came before.
async fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Asks until the answer has this status: places are free again a moment after a connection ends.
async fn until_status(address: SocketAddr, path: &str, status: u16) -> Got {
    loop {
        let got = get(address, path).await;
        if got.status == status {
            return got;
        }
        tokio::task::yield_now().await;
    }
}

/// A connection that has a place: it was answered, and stays open.
async fn hold(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"alive\n") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{}", String::from_utf8_lossy(&bytes));
    }
    stream
}

#[tokio::test]
async fn those_over_the_limit_are_told_so_and_kubelet_is_still_answered() {
    let played = Played::saying(status_samples::busy(), |options| options.limits.connections = 2);
    let held = [hold(played.address()).await, hold(played.address()).await];
    let got = get(played.address(), "/metrics").await;
    assert_eq!(
        (got.status, got.header("retry-after"), got.header("connection")),
        (503, Some("1"), Some("close"))
    );
    assert_eq!(until_status(played.address(), "/livez", 200).await.text(), "alive\n");
    assert_eq!(until_status(played.address(), "/readyz", 200).await.text(), "ready\n");
    drop(held);
    until_status(played.address(), "/metrics", 200).await;
}

#[tokio::test]
async fn beyond_that_the_oldest_of_them_makes_room() {
    let played = Played::saying(status_samples::busy(), |options| options.limits.connections = 1);
    let _held = hold(played.address()).await;
    // Takes the one spare place and says nothing.
    let silent = TcpStream::connect(played.address()).await.unwrap();
    assert_eq!(get(played.address(), "/livez").await.status, 200);
    assert_eq!(until_closed(silent).await, b"");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_cut_off() {
    let short = |options: &mut Options| options.limits.head_timeout = Duration::from_millis(10);
    let played = Played::saying(status_samples::busy(), short);
    let mut stream = TcpStream::connect(played.address()).await.unwrap();
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await;
    assert_eq!(until_closed(stream).await, b"");
    assert_eq!(
        until_closed(TcpStream::connect(played.address()).await.unwrap()).await,
        b"",
        "nor one that is silent"
    );
}

#[tokio::test]
async fn a_connection_without_another_request_ends() {
    let short = |options: &mut Options| options.limits.idle_timeout = Duration::from_millis(10);
    let played = Played::saying(status_samples::busy(), short);
    assert_eq!(until_closed(hold(played.address()).await).await, b"");
    // Drips of a next request do not help.
    let mut stream = hold(played.address()).await;
    let _ = stream.write_all(b"GET /").await;
    assert_eq!(until_closed(stream).await, b"");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let short = |options: &mut Options| options.limits.request_timeout = Duration::from_millis(50);
    let played = Played::saying(status_samples::busy(), short);
    // More than all buffers of the way hold.
    played.tell("x", Some(&vec![0; 32 << 20]));
    let mut stream = TcpStream::connect(played.address()).await.unwrap();
    stream.write_all(b"GET /incidents/x/capture HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // Written to by the server until it gives up; only then is anything read.
    while stream.write_all(b"\r\n").await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(until_closed(stream).await.len() < 32 << 20);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let played = Played::saying(status_samples::busy(), |options| options.limits.head_bytes = 8192);
    let fits = format!("X: {}\r\n", "x".repeat(7000));
    assert_eq!(ask(played.address(), "GET", "/livez", &fits).await.status, 200);
    let large = format!("X: {}\r\n", "x".repeat(9000));
    assert_eq!(ask(played.address(), "GET", "/livez", &large).await.status, 431);
    let many = "X: x\r\n".repeat(100);
    assert_eq!(ask(played.address(), "GET", "/livez", &many).await.status, 431);
    let uri = format!("/livez?{}", "x".repeat(9000));
    assert!(matches!(get(played.address(), &uri).await.status, 414 | 431));
}

#[tokio::test]
async fn nonsense_is_answered_or_closed_and_the_next_is_served() {
    let played = Played::busy();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(played.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let _ = stream.shutdown().await;
        let _ = until_closed(stream).await;
        assert_eq!(get(played.address(), "/livez").await.status, 200);
    }
}

#[tokio::test]
async fn one_answer_of_the_loop_serves_all_who_ask_at_once() {
    let (requests, mut asked) = mpsc::channel(8);
    let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.limits = Limits { reuse: LONG, ..patient() };
    let context = Context { requests, recent: Recent::default() };
    let server = bind(&options).unwrap().start(context).unwrap();
    let address = server.address();
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(get(address, "/livez"))).collect();
    let request: Request = asked.recv().await.unwrap();
    request.send(Box::default()).unwrap();
    for client in clients {
        assert_eq!(client.await.unwrap().status, 200);
    }
    assert!(asked.try_recv().is_err(), "asked once");
}

#[tokio::test]
async fn what_is_under_way_ends_before_the_server_does() {
    let (requests, mut asked) = mpsc::channel(1);
    let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.limits = patient();
    let server = bind(&options).unwrap().start(Context { requests, recent: Recent::default() }).unwrap();
    let address = server.address();
    let idle = TcpStream::connect(address).await.unwrap();
    let client = tokio::spawn(get(address, "/livez"));
    let request: Request = asked.recv().await.unwrap();
    let stopping = tokio::spawn(server.stop(LONG));
    assert_eq!(until_closed(idle).await, b"", "who asks nothing is not waited for");
    request.send(Box::default()).unwrap();
    assert_eq!(client.await.unwrap().status, 200);
    assert!(stopping.await.unwrap());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn who_never_ends_is_not_waited_for_beyond_the_deadline() {
    let (requests, mut asked) = mpsc::channel::<Request>(1);
    let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.limits = patient();
    let server = bind(&options).unwrap().start(Context { requests, recent: Recent::default() }).unwrap();
    let client = tokio::spawn(exchange(server.address(), b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
    let _kept = asked.recv().await.unwrap();
    assert!(!server.stop(Duration::from_millis(1)).await);
    assert_eq!(client.await.unwrap(), b"");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let played = Played::busy();
    let error = bind(&Options::new(played.address())).err().unwrap().to_string();
    assert!(error.contains(&played.address().to_string()) && error.contains("another program"), "{error}");
    let error = bind(&Options::new("192.0.2.1:0".parse().unwrap())).err().unwrap().to_string();
    assert!(error.contains("does not have that address"), "{error}");
}
