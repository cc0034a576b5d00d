"""What `accelerate launch` runs in test_launched.py: a plain and a cached step of each rank against the whole batch.

Prints the largest relative difference of a gradient, one number a rank.
"""

import sys

import torch
from accelerate import Accelerator

from model.parts import cached_step
from stages.processes import run_program
from tests.distributed.steps import CONFIG, COUNT, own_part
from tests.model.toy import gradients, loss_of, make_batch, make_model, split


def main(arguments):
    accelerator = Accelerator(cpu=True)
    expected = make_model()
    batch = make_batch(COUNT)
    loss_of(expected, CONFIG)(expected(batch), batch.item_ids, batch.weights).total.backward()
    own = own_part(batch, accelerator.process_index, accelerator.num_processes)
    distance = 0.0
    for sizes in ([len(own.item_ids)], [5, 1, 2]):
        network = make_model()
        parallel = accelerator.prepare(network)
        cached_step(
            parallel,
            split(own, sizes),
            loss_of(network, CONFIG),
            [network.log_scale],
            backward=accelerator.backward,
            no_sync=lambda parallel=parallel: accelerator.no_sync(parallel),
        )
        for name, wanted in gradients(expected).items():
            difference = gradients(network)[name] - wanted
            distance = max(distance, (difference.norm() / wanted.norm().clamp(min=torch.finfo().tiny)).item())
    distances = accelerator.gather(torch.tensor([distance])).tolist()
    if accelerator.is_main_process:
        print(*distances)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
