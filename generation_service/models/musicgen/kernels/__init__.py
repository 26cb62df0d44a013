"""The operations of a decode step: plain PyTorch for any device, and Triton kernels for NVIDIA GPUs.

Programmatic dependent launch, the argument `pdl` of the kernels (from compute capability 9.0 on): a kernel starts while
the one before it on the stream is still running, does what it can, and waits for that one to end and for its writes to
be visible (`gdc_wait`). A kernel that has called `gdc_launch_dependents` in all programs lets the next one start. Two
rules make it correct:

1. Every program of a kernel that is launched early waits, also those that have nothing to do. So a kernel ends after
   the one before it has, and, link by link, after all before: who waits for one kernel has waited for all. Before it
   waits, a kernel writes nothing, and reads only what no kernel of the same step writes: weights, the page tables and
   progress of the slots, and the keys and values of earlier steps.
2. The last kernel of a step (`end_step`, which writes the progress) does not call `gdc_launch_dependents`, nor do
   PyTorch's. So when any kernel of a step starts, all of the steps before have ended, within a graph or not. The first
   kernel of a step is launched in the usual way.

Programs that wait occupy an SM, but only once all programs of the kernels before them run: nothing waits in a circle.
"""
