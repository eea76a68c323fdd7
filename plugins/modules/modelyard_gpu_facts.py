#!/usr/bin/python
"""Read a host's NVIDIA GPUs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_gpu_facts
short_description: Read a host's NVIDIA GPUs
description:
  - "Reads the GPUs of the host, the driver's version and its CUDA version from C(nvidia-smi)."
  - A host without C(nvidia-smi), without a driver or without a device is no error. The list is
    empty then, and
    C(reason) says why. The module does not fail.
  - Nothing is ever changed.
options: {}
extends_documentation_fragment: [modelyard_unchanging]
notes:
  - Its name begins like those of all modules of this bundle, because modules of a playbook's
    directory share one namespace with all others.
  - It sets no C(ansible_facts), so register its result. A fact cache would hand the GPUs of one
    host to another of the
    same name in another inventory, or to a host that was made anew.
  - All calls of C(nvidia-smi) together may take 60 seconds. When a driver hangs for longer,
    C(reason) says so.
  - C(index) can change with a reboot, and CUDA programs count in that order only with
    C(CUDA_DEVICE_ORDER=PCI_BUS_ID). A UUID has neither problem.
author: Modelyard
"""

EXAMPLES = r"""
- name: GPUs are read
  modelyard_gpu_facts:
  register: gpu_facts

- name: There is a GPU
  ansible.builtin.assert:
    that: gpu_facts.gpus | length > 0
    fail_msg: "{{ gpu_facts.reason }}"
"""

RETURN = r"""
gpus:
  description: The GPUs in the order of C(nvidia-smi). Empty where there are none, and where they
    cannot be asked.
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: Place in the order of C(nvidia-smi), from 0.
      type: int
    uuid:
      description: UUID, the same after a reboot and in another slot.
      type: str
    name:
      description: Name of the product.
      type: str
    memory_mib:
      description: Memory in MiB, null where it shares the host's memory (GB10).
      type: int
    memory_free_mib:
      description: Free memory in MiB at this moment, null as above.
      type: int
    compute_capability:
      description: Compute capability, C(8.9) for example.
      type: str
    mig_mode:
      description: C(enabled), C(disabled), or null for a GPU without MIG. When enabled, only
        instances can be used.
      type: str
    mig_instances:
      description: The MIG instances of this GPU.
      type: list
      elements: dict
      contains:
        uuid:
          description: UUID of the instance.
          type: str
        profile:
          description: Profile, C(3g.40gb) for example.
          type: str
        gpu_instance:
          description: Id of the GPU instance it is a part of. Instances with the same id share one
            memory.
          type: int
        memory_mib:
          description: Memory in MiB.
          type: int
  sample:
    - index: 0
      uuid: GPU-5d2b7c3e-0000-0000-0000-000000000000
      name: NVIDIA GeForce RTX 4090
      memory_mib: 24564
      memory_free_mib: 24214
      compute_capability: "8.9"
      mig_mode: null
      mig_instances: []
      processes: [{pid: 4711, name: /opt/app/bin/server, gpu_instance: null, memory_mib: 310}]
driver_version:
  description: Version of the driver, null where there is no GPU.
  type: str
  returned: always
  sample: 580.173.02
cuda_version:
  description: The newest CUDA version that the driver supports, null where it does not say. No
    toolkit is looked for.
  type: str
  returned: always
  sample: "13.0"
reason:
  description: Why the list is empty, or what C(nvidia-smi) complained about. Null if all is well.
  type: str
  returned: always
"""

from ansible.module_utils.modelyard_gpus import find, survey
from ansible.module_utils.modelyard_module import new_module


def main() -> None:
    """Run the module."""
    module = new_module(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, **survey(find(module.get_bin_path)))


if __name__ == "__main__":
    main()
