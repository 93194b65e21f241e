"""Another background: what the picture shows stays, and what is behind it follows the prompt."""

from stableflow.editing.tasks.base import TASKS, Task, take_none


@TASKS.register("background")
def background(details: str) -> Task:
    """Keep the subject and draw everything around it as the edited prompt says.

    The region is the background. Tokens that hold any of the subject are held in all layers, and no latents are put
    back: a latent that shows both would carry a seam of the old background along. So no pixels of the given picture
    are put back either.
    """
    take_none("background", details)
    return Task("background", settings={"policy": "background", "layers": "all"}, looks_for="~kept", exact=False)
