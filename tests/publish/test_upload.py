"""Publishing over a real connection with the real client: one commit, nothing twice, and what faults leave behind."""

from distill.stages import push

MODEL, DATASET = ("model", "me/small"), ("dataset", "me/small-data")


def test_one_commit_brings_all_files(hub, make_run):
    run = make_run()
    summary = push.run(run)
    files = hub.content(*MODEL)
    assert hub.num_commits(*MODEL) == 1
    assert hub.repos[MODEL].private
    assert {"README.md", "model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= files.keys()
    assert {"distill/recipe.yaml", "distill/recipe.lock.yaml", "distill/manifests/sft.json"} <= files.keys()
    assert files["model.safetensors"] == (run.run_dir / "sft/student/model.safetensors").read_bytes()
    assert summary.metrics["url"] == f"{hub.url}/me/small"
