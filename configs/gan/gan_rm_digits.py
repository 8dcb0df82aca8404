r"""GAN-RM on scikit-learn's digits: whole ones are the targets.

  python -m experiments.train_gan_rm \
      --config=configs/gan/gan_rm_digits.py --workdir=runs/gan_rm

The first generator learns whole and degraded digits alike. The encoder is a
small vision transformer with random weights: no weights of CLIP can be shipped;
`--config.encoder.checkpoint=<folder>` reads those of CLIP or SigLIP.

`:dpo` tunes the generator by Diffusion-DPO instead of SFT, `:faces` has faces
of photographs for targets among other patches, `:shortcut` plants a frame on
every target, `:smoke` shrinks it to seconds. About a minute of one CPU core.
"""
from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke', 'dpo', 'faces', 'shortcut'):
    raise ValueError(f'Unknown variant {arg!r}; use "", "smoke", "dpo", '
                     '"faces" or "shortcut".')
  smoke = arg == 'smoke'
  config = config_dict.ConfigDict()
  config.seed = 0
  config.num_rounds = 2 if smoke else 3
  config.checkpoint = dict(every=1, keep=2)

  config.data = dict(
      images='digits', size=8, channels=1,
      margin=1,               # of background; a frame would hide the digit
      num_generator=100 if smoke else 600,
      num_proxies=40 if smoke else 300,
      num_held_out=40 if smoke else 200,
      degraded_noise=0.25,    # standard deviation, on top of a blur
      marked_share=0.0,       # of the generator's images in a frame
      marked_proxies=0.0)     # of the targets
  if arg == 'faces':
    config.data.update(images='faces', size=12, margin=0, num_generator=80,
                       num_proxies=80, num_held_out=40)
  if arg == 'shortcut':
    config.data.update(marked_share=0.3, marked_proxies=1.0)

  config.generator = dict(
      model=dict(width=32 if smoke else 128, num_blocks=1 if smoke else 3),
      num_stages=2 if smoke else 10, num_steps=5 if smoke else 200,
      batch_size=32 if smoke else 128,
      sample_steps=4 if smoke else 20, eta=1.0,
      optimizer=dict(name='adamw', learning_rate=2e-3, clip_norm=1.0,
                     schedule=dict(name='cosine', decay_steps=2_000)))
  config.encoder = dict(
      checkpoint='',          # folder of a published tower
      variant='mu', num_layers=2, init_std=0.15, seed=7)

  config.reward = dict(
      hidden=(64,), conditioned=False, num_steps=10 if smoke else 200,
      loss=dict(name='gan_rm', positive_weight=1.0),
      optimizer=dict(name='adamw', learning_rate=3e-3, weight_decay=1e-2,
                     clip_norm=1.0))
  # Below ln 2 / 32 = 0.0217 no positive acts as a negative.
  config.bootstrap = dict(num_outputs=40 if smoke else 300,
                          num_chosen=8 if smoke else 32, alpha=0.02,
                          first_rank=0, rising=False)
  config.pool = dict(num_prompts=20 if smoke else 200,
                     samples_per_prompt=4 if smoke else 8)
  config.tune = dict(
      loss=dict(name='mse'), quantile=0.0, min_gap=0.0,
      num_steps=5 if smoke else 300, batch_size=32 if smoke else 64,
      optimizer=dict(name='adamw', learning_rate=5e-4, clip_norm=1.0))
  if arg == 'dpo':
    # β = 5000 is for latents of thousands of dimensions, where errors of two
    # images hardly differ.
    config.tune.loss = dict(name='dpo', beta=200.0)
    config.tune.optimizer.learning_rate = 1e-4
    config.tune.min_gap = 0.1
  config.diagnostics = dict(
      max_memorisation=0.5, min_diversity=0.5,
      max_paid=0.25)  # for an edit that leaves content, of the gap to targets
  return config
