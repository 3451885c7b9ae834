"""Of `robotwin/description`: placeholders filled, sentences drawn by the global generator."""

import random

_SENTENCES = {
    "seen": ["Grab the {A} and put it on the mat", "Use {a} to lift the {A} onto the mat"],
    "unseen": ["Place {A} on the mat", "Let {a} carry {A} to the mat", "Bring {A} to the mat"],
}


def generate_episode_descriptions(task_name, episodes, max_descriptions=1000000, seed=None):
    answers = []
    for index, episode in enumerate(episodes):
        answer = {"episode_index": index}
        for kind, sentences in _SENTENCES.items():
            drawn = random.sample(sentences, len(sentences))[:max_descriptions]
            for key, value in episode.items():
                drawn = [sentence.replace(key, value) for sentence in drawn]
            answer[kind] = drawn
        answers.append(answer)
    return answers
