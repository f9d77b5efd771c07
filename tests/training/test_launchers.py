"""Variables as real launchers set them: srun 22.05, Open MPI 5.0, MPICH 5.0, each printed by ``env`` under it."""

import subprocess
import sys

import pytest

from autoscale_ds.errors import ConfigError
from autoscale_ds.training.launchers import first_host, torch_variables

SRUN = {
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_NODELIST": "gpu[06-08]",
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_NAMESPACE": "prterun-host-7508@1",
    "PMIX_RANK": "1",
}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "4"}


def place(variables):
    return [variables[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")]


def test_a_task_of_srun_finds_its_rank_and_the_first_node_of_its_step():
    assert place(torch_variables(SRUN)) == ["9", "1", "16", "gpu07"]


@pytest.mark.parametrize("launch", [OPEN_MPI, MPICH], ids=["open mpi", "mpich"])
def test_a_rank_of_mpirun_on_one_machine_finds_rank_zero_there(launch):
    rank = launch.get("PMI_RANK", "1")
    assert place(torch_variables(launch)) == [rank, rank, "4", "127.0.0.1"]


def test_all_ranks_of_a_job_have_one_port_and_another_job_has_another():
    ports = {torch_variables(SRUN | {"SLURM_PROCID": str(rank)})["MASTER_PORT"] for rank in range(16)}
    assert len(ports) == 1
    assert ports != {torch_variables(SRUN | {"SLURM_JOB_ID": "4712"})["MASTER_PORT"]}
    assert 20000 <= int(*ports) < 30000


def test_what_the_launcher_or_the_user_set_is_kept():
    assert torch_variables(SRUN | {"RANK": "0"}) == {}
    given = torch_variables(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"})
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("10.0.0.1", "1234")


def test_a_batch_script_a_single_task_and_a_plain_python_are_alone():
    batch_script = {name: value for name, value in SRUN.items() if "STEP" not in name} | {"SLURM_NTASKS": "16"}
    assert torch_variables(batch_script) == {}
    assert torch_variables(SRUN | {"SLURM_STEP_NUM_TASKS": "1"}) == {}
    assert torch_variables({"PATH": "/bin"}) == {}


def test_mpirun_inside_a_slurm_job_counts_before_the_srun_it_starts_its_helpers_by():
    elsewhere = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    assert place(torch_variables(SRUN | elsewhere)) == ["1", "1", "4", "gpu06"]


def test_mpirun_over_several_machines_asks_for_the_address_of_rank_zero():
    elsewhere = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    with pytest.raises(ConfigError, match="-x MASTER_ADDR=HOST"):
        torch_variables(elsewhere)
    assert torch_variables(elsewhere | {"MASTER_ADDR": "a"})["MASTER_ADDR"] == "a"


def test_a_rank_with_a_gpu_of_its_own_counts_from_zero():
    assert torch_variables(SRUN | {"CUDA_VISIBLE_DEVICES": "5"})["LOCAL_RANK"] == "0"
    assert torch_variables(SRUN | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"})["LOCAL_RANK"] == "1"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node[001-004,7],other", "node001"),
        ("login,node[1-2]", "login"),
        ("rack[2-3]-n[01-16,20]", "rack2-n01"),
        ("127.0.0.[1-2]", "127.0.0.1"),
        ("a-[3].cluster.org,b", "a-3.cluster.org"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_finding_out_needs_no_torch():
    code = "import sys, autoscale_ds.training.launchers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
