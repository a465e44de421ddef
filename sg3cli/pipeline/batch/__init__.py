"""Many clips, by many workers.

`plan` says what is to do, `clip` takes a clip from begin to end, `tasks` and `worker` are what a worker does, `store`
and `staging` what goes between machines, `schedule` hands tasks out, and `on_ray` has the workers.

The one who started the batch owns projects and outputs. Workers get a copy of a project, do one task on it, and hand
back files; so a lost worker loses one task, and nothing that stands is ever in its hands.
"""
