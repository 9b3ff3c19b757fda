//! The lab's real services: dnsmasq on the gateway, nginx in the internet.

use std::{
    fmt::Write as _,
    fs,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::{
    addresses::{DELEGATED, GATEWAY_V4, NAMED, NAMED_TTL, NAMED_V4, NAMED_V6, SITE_V4, SITE_V6, SITES},
    lab::{BIG_FILE, DRIP_RATE, SITE_PAGE},
    namespace::Namespace,
    process::{Service, succeed},
};

/// Answers every name with the web server's addresses, and leases addresses to who asks. A few names have addresses of their own.
pub(crate) fn dnsmasq(gateway: &Namespace, directory: &Path) -> Result<Service> {
    let file = |name: &str| directory.join(name).display().to_string();
    fs::write(directory.join("dnsmasq.conf"), names())?;
    let mut command = gateway.service("dnsmasq");
    command
        .args(["--keep-in-foreground", &format!("--conf-file={}", file("dnsmasq.conf")), "--no-resolv", "--no-hosts"])
        // A change of user would clear the signal that ends it with the lab (PR_SET_PDEATHSIG).
        .arg("--user=root")
        // Dynamic: a second guest network comes later, if at all.
        .args(["--bind-dynamic", "--except-interface=lo", "--interface=guest*"])
        .args([format!("--address=/#/{SITE_V4}"), format!("--address=/#/{SITE_V6}")])
        .args(["--dhcp-range=192.0.2.100,192.0.2.199,1h", "--dhcp-range=203.0.113.100,203.0.113.199,1h"])
        .args(["--dhcp-authoritative", "--no-ping"])
        .args([format!("--dhcp-leasefile={}", file("leases")), format!("--pid-file={}", file("dnsmasq.pid"))])
        .args([format!("--log-facility={}", file("dnsmasq.log"))]);
    let service = Service::start("dnsmasq", &mut command, &directory.join("dnsmasq.out"))?;
    gateway.wait_for_port(IpAddr::V4(GATEWAY_V4), 53).with_context(|| format!("dnsmasq: {}", service.log()))?;
    Ok(service)
}

/// The names that have addresses of their own, an alias of an alias of one of them, and the domain with another name server.
fn names() -> String {
    let mut text = format!("server=/{DELEGATED}/{SITE_V4}\n");
    for n in 1..=NAMED {
        let (v4, v6) = (u32::from(NAMED_V4) + n, u128::from(NAMED_V6) + u128::from(n));
        let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
        writeln!(text, "host-record=site{n}.named.example,{v4},{v6},{NAMED_TTL}").expect("a String takes all");
    }
    text + "cname=alias.garden.example,middle.cdn.example,2\ncname=middle.cdn.example,site1.named.example,2\n"
}

/// Serves the same site for every name, over HTTP and HTTPS.
pub(crate) fn nginx(internet: &Namespace, directory: &Path) -> Result<Service> {
    let root = directory.join("www");
    // Not its parents: a lab that a signal has removed stays removed.
    fs::create_dir(&root)?;
    fs::write(root.join("index.html"), SITE_PAGE)?;
    File::create(root.join("big"))?.set_len(BIG_FILE)?;
    let (key, certificate) = (directory.join("site.key"), directory.join("site.pem"));
    succeed(
        portal_tools::command("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=Portal's lab", "-addext", "subjectAltName=DNS:*.example,DNS:*.example.com"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    )?;
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, nginx_configuration(directory, &root, &key, &certificate))?;
    let log = directory.join("nginx.log");
    let mut command = internet.service("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(&configuration).arg("-e").arg(&log);
    let service = Service::start("nginx", &mut command, &log)?;
    for site in SITES {
        for port in [80, 443] {
            internet.wait_for_port(site, port).with_context(|| format!("nginx: {}", service.log()))?;
        }
    }
    Ok(service)
}

fn nginx_configuration(directory: &Path, root: &Path, key: &Path, certificate: &Path) -> String {
    let (directory, root) = (directory.display(), root.display());
    let (key, certificate) = (key.display(), certificate.display());
    // One process, so that no worker outlives a killed master.
    format!(
        "daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/html;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    server {{
        listen 80 default_server;
        listen [::]:80 default_server;
        listen 443 ssl default_server;
        listen [::]:443 ssl default_server;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {root};
        location = /nm {{ default_type text/plain; return 200 'NetworkManager is online\\n'; }}
        location = /generate_204 {{ return 204; }}
        location = /drip {{ alias {root}/big; limit_rate {DRIP_RATE}; }}
        location / {{ try_files $uri /index.html; }}
    }}
}}
"
    )
}
