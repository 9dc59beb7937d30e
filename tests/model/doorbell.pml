/* Sleeping and waking, with a store buffer in front of each process's memory. docs/RING.md explains
 * the protocol; the names are those of src/ring/layout.h and src/ring/doorbell.h.
 *
 * Covered: the three sleepers (producer, supervisor, consumer), their flags, bells and the pidfds
 * that they poll together with the bells; every word that one of them waits for: PUBLISH, RELEASE,
 * INTENT, OUTCOME, FINISH, SHUTDOWN; the orders of all stores; DEATHS deaths of the checkpoint
 * process and TRAINER_DEATHS of the trainer at any step, so also between a store and its ring; the
 * bells that a starting process rings; saves that are sealed, aborted, or fail.
 *
 * Memory is that of x86 (TSO). A store enters its process's buffer and becomes visible some time
 * later, in order (STORE_RELEASE); one that is sequentially consistent waits until the buffer is
 * empty and its own value visible (STORE_SEQ_CST). A load reads memory: no process loads what it
 * stored itself, so it never has to look into its own buffer. What a killed process had stored
 * becomes visible before its pidfd is readable.
 *
 * Not covered here: contents and files (saves.pml). Blocks are on disk as soon as they are taken,
 * there is one record, and published blocks are counted rather than marked slot by slot. No
 * time-outs: whoever is not woken sleeps for ever, and the search reports it as an invalid end
 * state. The bound on `expect`, by which the trainer tells its supervisor of a save, is left out:
 * it is a bell within one process.
 */

#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef TRAINER_DEATHS
#define TRAINER_DEATHS 1
#endif
#ifndef SAVES
#define SAVES 2
#endif
#define SLOTS 2
#define BLOCKS(save) ((save) == 1 -> 3 : 1)

/* Words of shared memory. */
#define PUBLISHED 0
#define INTENT 1
#define END 2 /* of the save that INTENT tells of */
#define TAIL 3
#define OUTCOME 4
#define FINISHED 5
#define SHUTDOWN 6
#define DATA_SLEEPING 7
#define SPACE_SLEEPING 8
#define RESULT_SLEEPING 9
byte memory[10];

/* A save's number and its state in one word. */
#define WORD(save, state) ((save) * 4 + (state))
#define SAVE_OF(word) ((word) / 4)
#define STATE_OF(word) ((word) % 4)
#define STAGING 1 /* intents */
#define SEALED 2
#define ABORTED 3
#define OPEN 1 /* outcomes */
#define COMMITTED 2
#define FAILED 3 /* or aborted */
#define IS_TERMINAL(word, save) ((word) == WORD(save, COMMITTED) || (word) == WORD(save, FAILED))

/* Store buffers: the producer's, the supervisor's, the consumer's. */
#define P 0
#define S 1
#define C 2
chan buffer[3] = [2] of { byte, byte };
#define STORE_SEQ_CST(who, word, value) atomic { empty(buffer[who]) -> memory[word] = value }
#define STORE_RELEASE(who, word, value) buffer[who] ! word, value

#ifdef MUTANT_PUBLISH_RELEASE
#define STORE_PUBLISHED STORE_RELEASE
#else
#define STORE_PUBLISHED STORE_SEQ_CST
#endif
#ifdef MUTANT_INTENT_RELEASE
#define STORE_INTENT STORE_RELEASE
#else
#define STORE_INTENT STORE_SEQ_CST
#endif
#ifdef MUTANT_TAIL_RELEASE
#define STORE_TAIL STORE_RELEASE
#else
#define STORE_TAIL STORE_SEQ_CST
#endif
#ifdef MUTANT_OUTCOME_RELEASE
#define STORE_OUTCOME STORE_RELEASE
#else
#define STORE_OUTCOME STORE_SEQ_CST
#endif
#ifdef MUTANT_FINISH_RELEASE
#define STORE_FINISHED STORE_RELEASE
#else
#define STORE_FINISHED STORE_SEQ_CST
#endif
#ifdef MUTANT_SHUTDOWN_RELEASE
#define STORE_SHUTDOWN STORE_RELEASE
#else
#define STORE_SHUTDOWN STORE_SEQ_CST
#endif
#ifdef MUTANT_DATA_FLAG_RELEASE
#define STORE_DATA_FLAG STORE_RELEASE
#else
#define STORE_DATA_FLAG STORE_SEQ_CST
#endif
#ifdef MUTANT_SPACE_FLAG_RELEASE
#define STORE_SPACE_FLAG STORE_RELEASE
#else
#define STORE_SPACE_FLAG STORE_SEQ_CST
#endif
#ifdef MUTANT_RESULT_FLAG_RELEASE
#define STORE_RESULT_FLAG STORE_RELEASE
#else
#define STORE_RESULT_FLAG STORE_SEQ_CST
#endif

bool data_bell, space_bell, result_bell; /* eventfds */

bool helper_alive = true, helper_killed, trainer_dead;
#define HELPER_PIDFD (!helper_alive && empty(buffer[C]))
#define TRAINER_PIDFD (trainer_dead && empty(buffer[P]) && empty(buffer[S]))

byte delivered; /* within the trainer: outcomes that the supervisor has fetched */
bool shutting_down;

/* ring_if_asleep: the look and the ring are two steps, and a process may die in between. */
#define RING_IF_ASLEEP(flag, bell) \
  if                               \
  :: memory[flag] -> bell = true   \
  :: else                          \
  fi

/* The waker stores first and looks then. */
#ifdef MUTANT_LOOK_BEFORE_STORE
#define AND_RING(store, flag, bell)            \
  seen_flag = memory[flag];                    \
  store;                                       \
  if                                           \
  :: seen_flag -> seen_flag = false; bell = true \
  :: else                                      \
  fi
#else
#define AND_RING(store, flag, bell) store; RING_IF_ASLEEP(flag, bell)
#endif

/* The bell is cleared after the poll and before the next look. */
#ifdef MUTANT_BELL_CLEARED_AFTER_LOOK
#define CLEAR_BEFORE_POLL(bell) bell = false
#define CLEAR_AFTER_POLL(bell) skip
#else
#define CLEAR_BEFORE_POLL(bell) skip
#define CLEAR_AFTER_POLL(bell) bell = false
#endif

active proctype Producer() {
  byte save = 1, claimed, block;
  bool stop, seen_flag;
  {
    do
    :: save <= SAVES ->
      delivered >= save - 1; /* max_saves_in_flight is 1 */
      /* wait_for_record */
      if
      :: memory[FINISHED] >= save - 1 -> goto has_record
      :: else
      fi;
wait_for_record:
      STORE_SPACE_FLAG(P, SPACE_SLEEPING, 1);
#ifndef MUTANT_NO_SECOND_LOOK_SPACE
      if
      :: memory[FINISHED] >= save - 1 -> goto wakes_with_record
      :: else
      fi;
#endif
      CLEAR_BEFORE_POLL(space_bell);
      space_bell;
      CLEAR_AFTER_POLL(space_bell);
      if
      :: memory[FINISHED] < save - 1 -> STORE_SPACE_FLAG(P, SPACE_SLEEPING, 0); goto wait_for_record
      :: else
      fi;
wakes_with_record:
      STORE_SPACE_FLAG(P, SPACE_SLEEPING, 0);
has_record:
      AND_RING(STORE_INTENT(P, INTENT, WORD(save, STAGING)), DATA_SLEEPING, data_bell);
      do
      :: block < BLOCKS(save) && !stop ->
        if
        :: save == 1 -> stop = true; goto next_block /* given up */
        :: claimed - memory[TAIL] < SLOTS -> goto has_slot
        :: claimed - memory[TAIL] >= SLOTS
        fi;
wait_for_slot:
        STORE_SPACE_FLAG(P, SPACE_SLEEPING, 1);
#ifndef MUTANT_NO_SECOND_LOOK_SPACE
        if
        :: claimed - memory[TAIL] < SLOTS -> goto wakes_with_slot
        :: else
        fi;
        if
        :: memory[OUTCOME] == WORD(save, FAILED) -> stop = true; goto wakes_with_slot
        :: else
        fi;
#endif
        CLEAR_BEFORE_POLL(space_bell);
        space_bell;
        CLEAR_AFTER_POLL(space_bell);
        STORE_SPACE_FLAG(P, SPACE_SLEEPING, 0);
        goto wait_for_slot;
wakes_with_slot:
        STORE_SPACE_FLAG(P, SPACE_SLEEPING, 0);
        if
        :: stop -> goto next_block
        :: else
        fi;
has_slot:
        atomic { block++; claimed++ };
        AND_RING(STORE_PUBLISHED(P, PUBLISHED, claimed), DATA_SLEEPING, data_bell);
next_block:
        skip
      :: else -> break
      od;
      STORE_RELEASE(P, END, claimed); /* relaxed; INTENT orders it */
      if
      :: stop -> AND_RING(STORE_INTENT(P, INTENT, WORD(save, ABORTED)), DATA_SLEEPING, data_bell)
      :: else ->
        AND_RING(STORE_INTENT(P, INTENT, WORD(save, SEALED)), DATA_SLEEPING, data_bell)
      fi;
      d_step { save++; block = 0; stop = false }
    :: else -> break
    od;
    shutting_down = true;
    AND_RING(STORE_SHUTDOWN(P, SHUTDOWN, 1), DATA_SLEEPING, data_bell)
  } unless { trainer_dead };
}

#define HAS_NEWS (delivered < SAVES && IS_TERMINAL(memory[OUTCOME], delivered + 1))

active proctype Supervisor() {
  {
    skip;
watch:
    /* collect_outcomes */
    if
    :: HAS_NEWS -> delivered++
    :: else
    fi;
    STORE_RESULT_FLAG(S, RESULT_SLEEPING, 1);
#ifndef MUTANT_NO_SECOND_LOOK_RESULT
    if
    :: HAS_NEWS -> goto wakes
    :: else
    fi;
#endif
    CLEAR_BEFORE_POLL(result_bell);
    if
    :: result_bell -> CLEAR_AFTER_POLL(result_bell)
#ifndef MUTANT_HELPER_PIDFD_NOT_POLLED
    :: HELPER_PIDFD ->
      if
      :: HAS_NEWS -> delivered++
      :: else
      fi;
      if
      :: shutting_down && delivered == SAVES -> goto ended
      :: else -> helper_alive = true
      fi
#endif
    fi;
wakes:
    STORE_RESULT_FLAG(S, RESULT_SLEEPING, 0);
    goto watch;
ended:
    skip
  } unless { trainer_dead };
}

#define SET_PROGRESS(state)                                                               \
  AND_RING(STORE_OUTCOME(C, OUTCOME, WORD(save, state)), RESULT_SLEEPING, result_bell);   \
  RING_IF_ASLEEP(SPACE_SLEEPING, space_bell)

active proctype Consumer() {
  byte save, take, wanted, end;
  bool asked, trainer_gone, seen_flag;
life:
  {
    /* start */
    STORE_DATA_FLAG(C, DATA_SLEEPING, 0);
    d_step { save = memory[FINISHED] + 1; take = memory[TAIL] }; /* a dead predecessor's */
#ifndef MUTANT_NO_BELLS_AT_START
    space_bell = true;
    result_bell = true;
#endif
next_save:
    asked = memory[SHUTDOWN];
    wanted = memory[INTENT];
    if
    :: SAVE_OF(wanted) < save ->
      if
      :: asked || trainer_gone -> goto ends
      :: else
      fi;
wait_for_save:
      STORE_DATA_FLAG(C, DATA_SLEEPING, 1);
#ifndef MUTANT_NO_SECOND_LOOK_DATA
      if
      :: SAVE_OF(memory[INTENT]) == save -> goto wakes_with_save
      :: else
      fi;
      if
      :: memory[SHUTDOWN] -> goto wakes_with_save
      :: else
      fi;
#endif
      CLEAR_BEFORE_POLL(data_bell);
      if
      :: data_bell -> CLEAR_AFTER_POLL(data_bell); STORE_DATA_FLAG(C, DATA_SLEEPING, 0);
        goto wait_for_save
#ifndef MUTANT_TRAINER_PIDFD_NOT_POLLED
      :: TRAINER_PIDFD && !trainer_gone -> trainer_gone = true
#endif
      fi;
wakes_with_save:
      STORE_DATA_FLAG(C, DATA_SLEEPING, 0);
      goto next_save
    :: else
    fi;
    /* The record: an outcome of this save, or of an earlier one. */
    if
    :: memory[OUTCOME] == WORD(save, FAILED) || memory[OUTCOME] == WORD(save, COMMITTED) ->
      goto discard
    :: memory[OUTCOME] == WORD(save, OPEN)
    :: SAVE_OF(memory[OUTCOME]) < save -> SET_PROGRESS(OPEN)
    fi;
    do
    :: take < memory[PUBLISHED] ->
      /* on disk at once, or not at all */
      if
      :: take++; AND_RING(STORE_TAIL(C, TAIL, take), SPACE_SLEEPING, space_bell)
      :: save == 1 -> SET_PROGRESS(FAILED); goto discard
      fi
    :: else ->
      wanted = memory[INTENT];
      if
      :: STATE_OF(wanted) == SEALED && take == memory[END] -> SET_PROGRESS(COMMITTED);
        goto discard
      :: STATE_OF(wanted) == ABORTED && take == memory[END] -> SET_PROGRESS(FAILED);
        goto discard
      :: else
      fi;
      if
      :: trainer_gone && STATE_OF(wanted) == STAGING -> goto ends
      :: else
      fi;
wait_for_block:
      STORE_DATA_FLAG(C, DATA_SLEEPING, 1);
#ifndef MUTANT_NO_SECOND_LOOK_DATA
      if
      :: take < memory[PUBLISHED] -> goto wakes_with_block
      :: else
      fi;
      if
      :: memory[INTENT] != wanted -> goto wakes_with_block
      :: else
      fi;
#endif
      CLEAR_BEFORE_POLL(data_bell);
      if
      :: data_bell -> CLEAR_AFTER_POLL(data_bell); STORE_DATA_FLAG(C, DATA_SLEEPING, 0);
        goto wait_for_block
#ifndef MUTANT_TRAINER_PIDFD_NOT_POLLED
      :: TRAINER_PIDFD && !trainer_gone -> trainer_gone = true
#endif
      fi;
wakes_with_block:
      STORE_DATA_FLAG(C, DATA_SLEEPING, 0)
    od;

discard:
    wanted = memory[INTENT];
    if
    :: STATE_OF(wanted) != STAGING ->
      end = memory[END];
      if
      :: end > take -> take = end; AND_RING(STORE_TAIL(C, TAIL, take), SPACE_SLEEPING, space_bell)
      :: else
      fi;
      end = 0;
      AND_RING(STORE_FINISHED(C, FINISHED, save), SPACE_SLEEPING, space_bell);
      save++;
      goto next_save
    :: STATE_OF(wanted) == STAGING && trainer_gone -> goto ends
    :: STATE_OF(wanted) == STAGING && !trainer_gone
    fi;
wait_for_end:
    STORE_DATA_FLAG(C, DATA_SLEEPING, 1);
#ifndef MUTANT_NO_SECOND_LOOK_DATA
    if
    :: STATE_OF(memory[INTENT]) != STAGING -> goto wakes_with_end
    :: else
    fi;
#endif
    CLEAR_BEFORE_POLL(data_bell);
    if
    :: data_bell -> CLEAR_AFTER_POLL(data_bell); STORE_DATA_FLAG(C, DATA_SLEEPING, 0);
      goto wait_for_end
#ifndef MUTANT_TRAINER_PIDFD_NOT_POLLED
    :: TRAINER_PIDFD && !trainer_gone -> trainer_gone = true
#endif
    fi;
wakes_with_end:
    STORE_DATA_FLAG(C, DATA_SLEEPING, 0);
    goto discard;

ends:
    /* A sealed save has ended, and its blocks are let go. */
    assert(STATE_OF(memory[INTENT]) != SEALED || memory[FINISHED] == SAVE_OF(memory[INTENT]) ||
           nempty(buffer[C]));
    helper_alive = false
  } unless { helper_killed };
  d_step {
    if :: helper_killed -> helper_killed = false; helper_alive = false :: else fi;
    save = 0; take = 0; wanted = 0; end = 0; asked = false; trainer_gone = false;
    seen_flag = false
  };
end_gone:
  helper_alive;
  goto life;
}

active proctype StoreBuffers() {
  byte word, value;
end_empty:
  do
  :: atomic { buffer[P] ? word, value -> memory[word] = value; word = 0; value = 0 }
  :: atomic { buffer[S] ? word, value -> memory[word] = value; word = 0; value = 0 }
  :: atomic { buffer[C] ? word, value -> memory[word] = value; word = 0; value = 0 }
  od
}

/* Any of the deaths that are left may come next, or none any more: nobody may need one to wake. */
active proctype Accidents() {
  byte helper_deaths = DEATHS, trainer_deaths = TRAINER_DEATHS;
end_quiet:
  do
  :: atomic { helper_deaths > 0 && helper_alive && !helper_killed ->
      helper_deaths--; helper_killed = true }
  :: atomic { trainer_deaths > 0 -> trainer_deaths--; trainer_dead = true }
  :: atomic { helper_deaths > 0 || trainer_deaths > 0 -> helper_deaths = 0; trainer_deaths = 0 }
  od
}
