// Places among several processes, as the launchers' variables give them.
#include "compress/cli/ranks.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/support/run_program.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

RankPlace place_of(const std::map<std::string, std::string>& variables) {
  return find_rank([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  });
}

std::string refusal(const std::map<std::string, std::string>& variables) {
  return test::error_of([&] { place_of(variables); });
}

TEST(Ranks, AProcessByItselfIsAlone) {
  EXPECT_TRUE(place_of({}).alone());
  EXPECT_TRUE(place_of({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).alone());
  // A batch script of Slurm, before srun.
  EXPECT_TRUE(place_of({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}).alone());
}

TEST(Ranks, OfTorchrun) {
  const RankPlace place = place_of({{"RANK", "3"},
                                    {"WORLD_SIZE", "4"},
                                    {"LOCAL_WORLD_SIZE", "2"},
                                    {"LOCAL_RANK", "0"},
                                    {"MASTER_ADDR", "node1"},
                                    {"MASTER_PORT", "1234"},
                                    {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                    {"TORCHELASTIC_RESTART_COUNT", "2"}});
  EXPECT_EQ(place.rank, 3);
  EXPECT_EQ(place.size, 4);
  EXPECT_EQ(place.local_size, 2);
  EXPECT_EQ(place.local_rank, 0);  // Ranks need not lie on machines in blocks.
  EXPECT_EQ(place.address, "node1");
  EXPECT_EQ(place.port, 1234);
  EXPECT_TRUE(place.served);
  EXPECT_EQ(place.session, "2");
}

TEST(Ranks, OfOpenMpiOnOneMachineMeetThere) {
  const RankPlace place = place_of({{"OMPI_COMM_WORLD_RANK", "1"},
                                    {"OMPI_COMM_WORLD_SIZE", "2"},
                                    {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_EQ(place.rank, 1);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.address, "127.0.0.1");
  EXPECT_EQ(place.port, 29500);
  EXPECT_FALSE(place.served);
  EXPECT_NE(refusal({{"OMPI_COMM_WORLD_RANK", "1"},
                     {"OMPI_COMM_WORLD_SIZE", "4"},
                     {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}})
                .find("set MASTER_ADDR"),
            std::string::npos);
}

TEST(Ranks, OfSlurmMeetAtTheFirstMachineAtAPortOfTheJob) {
  const RankPlace place = place_of({{"SLURM_PROCID", "2"},
                                    {"SLURM_STEP_NUM_TASKS", "8"},
                                    {"SLURM_JOB_NODELIST", "gpu[007-009,12]"},
                                    {"SLURM_JOB_ID", "123456"}});
  EXPECT_EQ(place.rank, 2);
  EXPECT_EQ(place.size, 8);
  EXPECT_EQ(place.address, "gpu007");
  EXPECT_EQ(place.port, 23456);
}

TEST(Ranks, FirstHostOfSlurmsLists) {
  EXPECT_EQ(first_host("one"), "one");
  EXPECT_EQ(first_host("one,two"), "one");
  EXPECT_EQ(first_host("n[3,5]"), "n3");
  EXPECT_EQ(first_host("n[03-05].cluster,m1"), "n03.cluster");
  EXPECT_EQ(first_host("n[3"), "");
}

TEST(Ranks, WhatIsMissingOrImpossibleIsNamed) {
  EXPECT_EQ(refusal({{"WORLD_SIZE", "2"}}),
            "RANK: expected a number from 0 to 1 in the environment, found none");
  EXPECT_EQ(refusal({{"WORLD_SIZE", "2"}, {"RANK", "2"}}),
            "RANK: expected a number from 0 to 1 in the environment, found '2'");
  EXPECT_NE(refusal({{"WORLD_SIZE", "two"}, {"RANK", "0"}}).find("found 'two'"), std::string::npos);
  EXPECT_NE(
      refusal({{"WORLD_SIZE", "2"}, {"RANK", "0"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "x"}})
          .find("MASTER_PORT: expected"),
      std::string::npos);
}

TEST(Ranks, AVerbThatIsNotSharedIsRefused) {
  const auto run = test::run_slmc({"inspect", "x"}, {"WORLD_SIZE=2", "RANK=1", "MASTER_ADDR=a"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(run.err,
            "slmc: inspect: is not shared among processes, and 2 were started; start one, or unset "
            "WORLD_SIZE\n");
}

}  // namespace
}  // namespace slmc
