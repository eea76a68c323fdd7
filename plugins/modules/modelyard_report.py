"""Documentation of the action plugin modelyard_report: what runs on the host is the module
modelyard_prometheus.
"""

DOCUMENTATION = r"""
module: modelyard_report
short_description: Write a report of the last hours from Prometheus
version_added: "0.1.0"
author: Modelyard
description:
  - Asks the Prometheus of the host it is run for (C(delegate_to)) and writes one HTML file on the
    controller, with
    tables and plots, which needs neither a server nor the internet.
  - Nothing on the host is changed. A file that is there is replaced as a whole, or not at all.
options:
  plans:
    description: The compiled plans of all hosts; one of them has Prometheus.
    type: dict
    required: true
  public_names:
    description: Names that clients can ask for. Those without requests are in the report, too.
    type: list
    elements: str
    required: true
  hours:
    description: How far back, above zero and at most as long as Prometheus keeps what it measures.
    type: str
    default: "24"
  destination:
    description: Where to write, by default C(report-YYYY-MM-DD.html) where the playbook was
      started.
    type: str
    default: ""
  inventory:
    description: The inventory's directory, for the title.
    type: str
    required: true
requirements:
  - modelyard (this project's package, C(make env) installs it)
  - plotly
attributes:
  check_mode:
    support: full
    description: Prometheus is asked, nothing is written.
"""

EXAMPLES = r"""
# As playbooks/report.yml does.
- name: Write what Prometheus knows
  modelyard_report:
    plans: "{{ modelyard_compiled.plans }}"
    public_names: "{{ modelyard_compiled.public_names }}"
    hours: 24
    inventory: "{{ inventory_dir }}"
  delegate_to: watcher
  register: report
"""

RETURN = r"""
path:
  description: Where the page is, or would be.
  returned: success
  type: str
summary:
  description: The period, the most important figures, what is missing, and where the page is.
  returned: success
  type: str
"""
