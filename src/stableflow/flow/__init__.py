"""Pure numerics of rectified flow: times, solvers, trajectories, inversion. Knows no model.

Convention, everywhere in this project: flow time t runs from 1 (noise) to 0 (image),
z_t = (1 - t) z_0 + t noise, and the velocity is v = dz/dt = noise - z_0.
A step from t0 to t1 is z_{t1} = z_{t0} + (t1 - t0) v; its direction is nothing but the order of t0 and t1.
"""
