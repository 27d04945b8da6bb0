//! `portclash check --fix-script`: the first advice as a shell script that a person reads before running it.

use crate::exposure::check::Check;

/// The script, or a comment that there is nothing to do. Only digits, commas and hyphens of the node's values go into
/// its commands.
pub fn script(check: &Check) -> String {
    let wanted = check.to_reserve.join(",");
    if !is_ports(&wanted) {
        return "#!/bin/sh\n# portclash check: nothing has to be reserved on this node; this script does nothing.\n"
            .to_owned();
    }
    let why = match check.exposed_count {
        Some(count @ 1..) => {
            format!("{count} ports of IPVS services can become the source port of a connect.")
        }
        _ => "Ports that services use, or will use, can become the source port of a connect.".to_owned(),
    };
    let sources = check.ephemeral.first..=check.ephemeral.last;
    format!(
        "#!/bin/sh\n\
         # Written by portclash check. Read it, then run it as root on the node itself (not in a pod: the setting\n\
         # belongs to the network namespace).\n\
         #\n\
         # Why:   {why}\n\
         #        The kernel picks source ports from {first} to {last}.\n\
         # What:  adds {wanted}\n\
         #        to net.ipv4.ip_local_reserved_ports; what is reserved already stays reserved.\n\
         #        Open connections are not touched. Nothing is restarted.\n\
         # Not:   a program that binds one of these ports itself, and ports that SNAT picks, are not stopped by this.\n\
         \n\
         set -eu\n\
         value=/proc/sys/net/ipv4/ip_local_reserved_ports\n\
         file=/etc/sysctl.d/90-nodeports.conf\n\
         wanted={wanted}\n\
         \n\
         # 1. Keep what is there now.\n\
         before=$(cat \"$value\")\n\
         if [ -e \"$file\" ] && [ ! -e \"$file.before-portclash\" ]; then cp -p \"$file\" \"$file.before-portclash\"; fi\n\
         \n\
         # 2. For the running system. The kernel sorts the list and joins what overlaps.\n\
         echo \"${{before:+$before,}}$wanted\" > \"$value\"\n\
         after=$(cat \"$value\")\n\
         \n\
         # 3. After the next boot.\n\
         mkdir -p \"${{file%/*}}\"\n\
         echo \"net.ipv4.ip_local_reserved_ports = $after\" > \"$file\"\n\
         \n\
         echo \"reserved now: $after\"\n\
         echo \"to undo:\"\n\
         echo \"  echo '$before' > $value\"\n\
         if [ -e \"$file.before-portclash\" ]; then\n\
         \x20 echo \"  mv '$file.before-portclash' '$file'\"\n\
         else\n\
         \x20 echo \"  rm '$file'\"\n\
         fi\n",
        first = sources.start(),
        last = sources.end(),
    )
}

fn is_ports(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-'))
}

#[cfg(test)]
#[path = "check_script_tests.rs"]
mod tests;
