"""What a run will take, before it is run, and whether this machine is ready for it. Loads no model and no torch.

`plan.py` puts the estimates of the stages together, `record.py` keeps them for the comparison with what was,
`doctor.py` looks at the machine.
"""
