//! The scenarios: one function each, in one table.

mod backends;
pub(crate) mod changes;
mod check;
mod clients;
mod controls;
mod counts;
mod expected;
mod image;
mod losses;
mod options;
mod packets;
mod pods;
mod port_choice;
mod ports;
mod seed;
mod serve;
mod serve_privileges;

use anyhow::Result;

use crate::lab::Lab;

/// One scenario.
pub struct Scenario {
    /// Its name, which `--filter` looks into.
    pub name: &'static str,
    /// Plays it and fails with what is not as it should be.
    pub play: fn(&mut Lab) -> Result<()>,
}

const fn scenario(name: &'static str, play: fn(&mut Lab) -> Result<()>) -> Scenario {
    Scenario { name, play }
}

/// Every scenario, in the order in which they run.
pub const ALL: &[Scenario] = &[
    scenario("seed_incident_reuse_mode_0", seed::reuse_mode_0),
    scenario("seed_incident_reuse_mode_1", seed::reuse_mode_1),
    scenario("seed_incident_v6", seed::v6),
    scenario("seed_incident_kprobe_rung", seed::kprobe_rung),
    scenario("seed_incident_stable_rung", seed::stable_rung),
    scenario("backend_port_closed", backends::port_closed),
    scenario("backend_port_closed_v6", backends::port_closed_v6),
    scenario("backend_on_host_network", backends::on_host_network),
    scenario("backend_on_another_node", backends::on_another_node),
    scenario("persistent_service", backends::persistent_service),
    scenario("no_backends", backends::none),
    scenario("no_backends_v6", backends::none_v6),
    scenario("backends_of_weight_zero", backends::weight_zero),
    scenario("bridge_without_br_netfilter", backends::bridge_without_br_netfilter),
    scenario("peer_on_own_host", backends::peer_on_own_host),
    scenario("peer_on_own_host_v6", backends::peer_on_own_host_v6),
    scenario("ipvs_in_another_namespace", backends::ipvs_in_another_namespace),
    scenario("client_v4_mapped", clients::v4_mapped),
    scenario("client_reuse_address", clients::reuse_address),
    scenario("client_nonblocking", clients::nonblocking),
    scenario("client_fast_open", clients::fast_open),
    scenario("client_in_a_container", clients::in_a_container),
    scenario("client_again_from_the_same_port", clients::again_from_the_same_port),
    scenario("client_port_chosen_by_connect", clients::port_chosen_by_connect),
    scenario("client_port_chosen_by_bind", clients::port_chosen_by_bind),
    scenario("client_bind_address_no_port", clients::bind_address_no_port),
    scenario("clients_hundred_at_once", clients::hundred_at_once),
    scenario("service_created_while_tracing", changes::created_while_tracing),
    scenario("service_deleted_while_tracing", changes::deleted_while_tracing),
    scenario(
        "late_syn_ack_to_a_service_port_that_is_gone",
        changes::late_syn_ack_to_a_service_port_that_is_gone,
    ),
    scenario("services_five_thousand_added", changes::five_thousand_added),
    scenario("module_loaded_while_tracing", changes::module_loaded_while_tracing),
    scenario("module_unloaded_while_tracing", changes::module_unloaded_while_tracing),
    scenario("control_same_port_other_address", controls::same_port_other_address),
    scenario("control_udp_service", controls::udp_service),
    scenario("control_firewall_mark_service", controls::firewall_mark_service),
    scenario("control_to_cluster_ip", controls::to_cluster_ip_from_a_service_port),
    scenario("control_from_a_pods_own_namespace", controls::from_a_pods_own_namespace),
    scenario("control_refused", controls::refused),
    scenario("control_refused_from_a_service_port", controls::refused_from_a_service_port),
    scenario("control_closed_with_unread_data", controls::closed_with_unread_data),
    scenario("control_aborted", controls::aborted),
    scenario("control_late_syn_ack", controls::late_syn_ack),
    scenario("ports_used_up", ports::used_up),
    scenario("ports_used_up_stable_rung", ports::used_up_stable_rung),
    scenario("ports_used_up_stable_rung_v6", ports::used_up_stable_rung_v6),
    scenario("filters", options::filters),
    scenario("ends_by_itself", options::ends_by_itself),
    scenario("services_from_a_file", options::services_from_a_file),
    scenario("ring_full_is_counted", losses::ring_full_is_counted),
    scenario("packets_seed", packets::seed),
    scenario("packets_seed_v6", packets::seed_v6),
    scenario("packets_no_backend", packets::no_backend),
    scenario("packets_no_backend_v6", packets::no_backend_v6),
    scenario("packets_fast_open", packets::fast_open),
    scenario("packets_ring_full_is_counted", packets::ring_full_is_counted),
    scenario("packets_disk_full", packets::disk_full),
    scenario("serve_seed", serve::seed),
    scenario("serve_repeats", serve::repeats),
    scenario("serve_sigterm_drains", serve::sigterm_drains),
    scenario("serve_sigkill_leaves_nothing", serve::sigkill_leaves_nothing),
    scenario("serve_two_instances", serve::two_instances),
    scenario("serve_privileges_seed", serve_privileges::seed),
    scenario("serve_privileges_seed_without_kprobes", serve_privileges::seed_without_kprobes),
    scenario("serve_privileges_seed_stable_rung", serve_privileges::seed_stable_rung),
    scenario("serve_privileges_module_loaded_later", serve_privileges::module_loaded_later),
    scenario(
        "serve_privileges_module_loaded_later_sys_admin",
        serve_privileges::module_loaded_later_sys_admin,
    ),
    scenario(
        "serve_privileges_module_loaded_later_without_kprobes",
        serve_privileges::module_loaded_later_without_kprobes,
    ),
    scenario("serve_exposure_setting_changes_back", serve::exposure_setting_changes_back),
    scenario("serve_new_node_port_is_told_once", serve::new_node_port_is_told_once),
    scenario("serve_module_reloaded", serve::module_reloaded),
    scenario("serve_disk_full", serve::disk_full),
    scenario("serve_ring_minimum", serve::ring_minimum),
    scenario("serve_clock_stepped", serve::clock_stepped),
    scenario("serve_sigstop", serve::sigstop),
    scenario("serve_services_changed", serve::services_changed),
    scenario("serve_kubelet_gone", serve::kubelet_gone),
    scenario("serve_api_gone", serve::api_gone),
    scenario("serve_netns_churn", serve::netns_churn),
    // From here on they leave sockets in TIME-WAIT behind, whose ports nobody else can bind for a minute.
    scenario("ports_of_a_process_that_connects_to_itself_fentry", counts::to_itself_fentry),
    scenario("ports_of_a_process_that_connects_to_itself_kprobe", counts::to_itself_kprobe),
    scenario("ports_of_a_process_that_connects_to_itself_stable", counts::to_itself_stable),
    scenario("ports_of_short_lived_processes", counts::of_short_lived_processes),
    scenario("ports_none_left_fentry", counts::none_left_fentry),
    scenario("ports_none_left_kprobe", counts::none_left_kprobe),
    scenario("ports_none_left_stable", counts::none_left_stable),
    scenario("ports_none_left_v4_mapped", counts::none_left_v4_mapped),
    scenario("check_measures_connects", check::measures_connects),
    scenario("port_choice_seed_connect", port_choice::seed_connect),
    scenario("port_choice_seed_bind", port_choice::seed_bind),
    scenario("port_choice_many_connect", port_choice::many_connect),
    scenario("port_choice_many_bind", port_choice::many_bind),
    scenario("port_choice_traced", port_choice::traced),
    scenario("port_choice_search", port_choice::search),
    scenario("check_of_the_seeds_node", check::of_the_seeds_node),
    scenario("check_fix_script_ends_the_exposure", check::fix_script_ends_the_exposure),
    scenario("check_disagreement_with_a_file", check::disagreement_with_a_file),
];

/// The scenarios with containerd's pods and cgroups of version 2, in the order in which they run.
pub const WITH_CONTAINERS: &[Scenario] = &[
    scenario("pods_collision", pods::collision),
    scenario("pods_seed_story_without_names", pods::seed_story_without_names),
    scenario("pods_seed_story_from_a_file", pods::seed_story_from_a_file),
    scenario("pods_seed_story_from_kubelet", pods::seed_story_from_kubelet),
    scenario("pods_seed_story_from_the_api_server", pods::seed_story_from_the_api_server),
    scenario("pods_listed", pods::listed),
    scenario("pods_host_network_owner", pods::host_network_owner),
    scenario("image_seed_story", image::seed_story),
    scenario("image_seed_story_stable_rung", image::seed_story_stable_rung),
    scenario("image_seed_story_under_the_runtimes_filter", image::seed_story_under_the_runtimes_filter),
    scenario("image_one_shot", image::one_shot),
];

/// Those in which cgroups play a part, with cgroups of version 1.
pub const WITH_CGROUP1: &[Scenario] = &[
    scenario("pods_seed_story_from_kubelet", pods::seed_story_from_kubelet),
    scenario("pods_host_network_owner", pods::host_network_owner),
];
